//! The database: its tables, how they are laid out, and reading from them.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fjall::compaction::Leveled;
use fjall::config::CompressionPolicy;
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, UserKey, UserValue};

use crate::directory::Directory;
use crate::keys::Table;
use crate::{OpenError, Options};

/// Full memtables of one table that may wait to be written. The database itself stops its caller at four, in a wait that
/// no failure ends; staying below keeps the committing thread out of it.
const WAITING_MEMTABLES: usize = 2;

/// Files in the first level of one table from which the committing thread helps with compaction. Likewise below the
/// thirty at which the database would stop it.
const FIRST_LEVEL_FILES: usize = 16;

/// An open spool's database. Dropping it ends the database's threads and then releases the folder.
pub(crate) struct Store {
    database: Database,
    index: Keyspace,
    contents: Keyspace,
    rows: Keyspace,
    states: Keyspace,
    // Declared last, so that it is dropped last: the next owner finds the database closed.
    _directory: Directory,
}

impl Store {
    /// Opens the spool in a folder, or creates it.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Self, OpenError> {
        let directory = Directory::lock(path)?;
        if !directory.holds_spool()? {
            directory.create_spool(|database| {
                open_tables(database, options)
                    .map(drop)
                    .map_err(database_error(database))
            })?;
        }
        let path = directory.database();
        let (database, [index, contents, rows, states]) = open_tables(&path, options).map_err(database_error(&path))?;
        Ok(Self {
            database,
            index,
            contents,
            rows,
            states,
            _directory: directory,
        })
    }

    /// A value as it is on disk.
    pub(crate) fn get(&self, table: Table, key: &UserKey) -> fjall::Result<Option<UserValue>> {
        self.table(table).get(key)
    }

    /// What lies under keys of this prefix, in order, as it is on disk now, unaffected by later commits.
    pub(crate) fn scan(&self, table: Table, prefix: &[u8]) -> fjall::Iter {
        self.database.snapshot().prefix(self.table(table), prefix)
    }

    /// Writes changes, all or none, and returns when they are on disk.
    pub(crate) fn write(
        &self,
        changes: impl ExactSizeIterator<Item = ((Table, UserKey), Option<UserValue>)>,
    ) -> fjall::Result<()> {
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), changes.len())
            .durability(Some(PersistMode::SyncData));
        for ((table, key), value) in changes {
            match value {
                Some(value) => batch.insert(self.table(table), key, value),
                None => batch.remove(self.table(table), key),
            }
        }
        batch.commit()
    }

    /// Waits until the database can take another group without stopping its caller. An error when writing has failed.
    pub(crate) fn wait_for_room(&self) -> fjall::Result<()> {
        while let Some(behind) = self.tables().into_iter().find(|table| is_behind(table)) {
            self.check()?;
            if behind.l0_table_count() >= FIRST_LEVEL_FILES {
                // The database compacts one step for every file it writes, which need not be enough. A step of ours drops
                // no old versions (none are older than sequence number 0): which may go is for the database to know.
                behind.tree.compact(behind.config.compaction_strategy.clone(), 0)?;
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// An error when a write has failed, be it in the background.
    pub(crate) fn check(&self) -> fjall::Result<()> {
        self.database.persist(PersistMode::Buffer)
    }

    fn table(&self, table: Table) -> &Keyspace {
        match table {
            Table::Index => &self.index,
            Table::Contents => &self.contents,
            Table::Rows => &self.rows,
            Table::States => &self.states,
        }
    }

    fn tables(&self) -> [&Keyspace; 4] {
        [&self.index, &self.contents, &self.rows, &self.states]
    }
}

fn is_behind(table: &Keyspace) -> bool {
    table.sealed_memtable_count() >= WAITING_MEMTABLES || table.l0_table_count() >= FIRST_LEVEL_FILES
}

fn database_error(path: &Path) -> impl FnOnce(fjall::Error) -> OpenError {
    move |source| OpenError::Database {
        path: path.to_owned(),
        source,
    }
}

fn open_tables(path: &Path, options: &Options) -> fjall::Result<(Database, [Keyspace; 4])> {
    let database = Database::builder(path)
        .cache_size(options.cache_bytes as u64)
        // The least the database allows: what is in the memtables is a fraction of it, and it is read on every start.
        .max_journaling_size(64 * 1024 * 1024)
        // A second thread would not share the work: the database keeps one for writing memtables, which spins while the
        // other compacts. Memtables and files are small, so neither waits long for the other.
        .worker_threads(1)
        // Every group says itself how it is to be made durable.
        .manual_journal_persist(true)
        .open()?;
    let tables = [
        // Slice ids are mostly looked up to find that they are not there: filters pay on every level.
        database.keyspace("index", || table_options(options))?,
        database.keyspace("contents", || table_options(options).expect_point_read_hits(true))?,
        database.keyspace("rows", || table_options(options).expect_point_read_hits(true))?,
        database.keyspace("states", || table_options(options).expect_point_read_hits(true))?,
    ];
    Ok((database, tables))
}

/// Common to all tables: small values that are overwritten or removed before long.
fn table_options(options: &Options) -> KeyspaceCreateOptions {
    let file_bytes = options.memtable_bytes as u64;
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .max_memtable_size(file_bytes)
        // Files no larger than a memtable: compaction goes on in small steps, which take little memory and keep its one
        // thread from writing memtables only for a moment. With 400 MB of live slices, when twice as many have been
        // removed, the tables take up twice what lives; larger files save a third of that, for twice the memory.
        .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(file_bytes)))
        .data_block_compression_policy(CompressionPolicy::disabled())
}
