//! The folder of a spool: who may open it, in which format it is, and how it comes to be.
//!
//! ```text
//! LOCK            held by the process that has the spool open
//! queue/FORMAT    the format of what lies beside it
//! queue/database/ the database
//! queue.new/      a spool being created; worth nothing
//! ```
//!
//! A new spool is made in `queue.new` and put in place by one rename. So a `queue` is always complete, and a process
//! killed while creating one leaves nothing that the next could not start over.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::OpenError;

/// The format written, and the newest that can be read.
pub(crate) const FORMAT: u32 = 1;

const FORMAT_HEADING: &str = "relaypool-spool ";

/// A spool's folder, held exclusively until dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Creates the folder when it is missing, and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self, OpenError> {
        fs::create_dir_all(path).map_err(failed("create", path))?;
        let file = path.join("LOCK");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&file)
            .map_err(failed("open", &file))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::Locked {
                directory: path.to_owned(),
            },
            TryLockError::Error(source) => failed("lock", &file)(source),
        })?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The folder of the database.
    pub(crate) fn database(&self) -> PathBuf {
        self.queue().join("database")
    }

    /// True when the folder holds a spool, in a format this program can read; false when it holds none.
    pub(crate) fn holds_spool(&self) -> Result<bool, OpenError> {
        let queue = self.queue();
        if !queue.try_exists().map_err(failed("look for", &queue))? {
            return Ok(false);
        }
        let file = queue.join("FORMAT");
        let text = fs::read(&file).map_err(failed("read", &file))?;
        let Some(found) = parse_format(&text) else {
            return Err(OpenError::UnreadableFormat { file });
        };
        if found > FORMAT {
            return Err(OpenError::NewerFormat {
                directory: self.path.clone(),
                found,
                supported: FORMAT,
            });
        }
        Ok(true)
    }

    /// Creates a spool: `create_database` makes an empty database in the folder it is given and leaves it closed.
    pub(crate) fn create_spool(
        &self,
        create_database: impl FnOnce(&Path) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let new = self.path.join("queue.new");
        match fs::remove_dir_all(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &new)(error)),
            _ => {}
        }
        fs::create_dir(&new).map_err(failed("create", &new))?;
        create_database(&new.join("database"))?;
        let format = new.join("FORMAT");
        write_durably(&format, &format!("{FORMAT_HEADING}{FORMAT}\n")).map_err(failed("write", &format))?;
        synchronise(&new)?;
        let queue = self.queue();
        fs::rename(&new, &queue).map_err(failed("put in place", &queue))?;
        synchronise(&self.path)
    }

    fn queue(&self) -> PathBuf {
        self.path.join("queue")
    }
}

/// The version in the text of a `FORMAT` file.
fn parse_format(text: &[u8]) -> Option<u32> {
    let version = std::str::from_utf8(text).ok()?.strip_prefix(FORMAT_HEADING)?;
    version.trim_end().parse().ok().filter(|version| *version > 0)
}

fn write_durably(file: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create_new(file)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Makes the names in a folder durable.
fn synchronise(folder: &Path) -> Result<(), OpenError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("synchronise", folder))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_file_is_read_strictly() {
        assert_eq!(parse_format(b"relaypool-spool 1\n"), Some(1));
        assert_eq!(parse_format(b"relaypool-spool 40"), Some(40));
        for text in [
            "",
            "1\n",
            "relaypool-spool \n",
            "relaypool-spool 0\n",
            "relaypool-spool -1\n",
            "relaypool-spool x\n",
        ] {
            assert_eq!(parse_format(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_format(b"relaypool-spool \xff"), None);
    }

    #[test]
    fn an_unfinished_creation_is_started_over() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::lock(folder.path()).unwrap();
        directory
            .create_spool(|_| {
                Err(OpenError::Damaged {
                    path: PathBuf::from("interrupted"),
                })
            })
            .unwrap_err();
        assert!(folder.path().join("queue.new").exists());
        assert!(!directory.holds_spool().unwrap());

        directory
            .create_spool(|database| fs::create_dir(database).map_err(failed("create", database)))
            .unwrap();
        assert!(directory.holds_spool().unwrap());
        assert!(!folder.path().join("queue.new").exists());
        assert!(directory.database().is_dir());
    }
}
