//! `relaypool explain`

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use relaypool_api::Domain;

use crate::explain::{Explanation, ForPool, find_mail_hosts, text};
use crate::local::Objects;

/// Arguments of `relaypool explain`.
#[derive(Args)]
pub struct Explain {
    /// The recipients' domain.
    domain: Domain,
    /// A YAML file, or a folder of them, instead of the cluster. How sending IPs stand is not known then.
    #[arg(short, long, conflicts_with_all = ["namespace", "context"])]
    file: Option<PathBuf>,
    /// The pool that sends. Absent: the only one there is.
    #[arg(short, long)]
    pool: Option<String>,
    /// Namespace of the pool. Absent: that of the kubeconfig's context.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Context of the kubeconfig. Absent: the current one.
    #[arg(long)]
    context: Option<String>,
    /// MX hosts of the best preference, instead of asking DNS.
    #[arg(long, value_delimiter = ',')]
    mx: Vec<Domain>,
    /// Name servers to ask, `address` or `address:port`. Absent: those of the pool, or else of this machine.
    #[arg(long = "dns-server", value_delimiter = ',', conflicts_with = "mx")]
    dns_servers: Vec<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Explain {
    /// Prints the explanation. A domain that takes no mail is an answer, too.
    pub async fn run(self) -> anyhow::Result<()> {
        let pool = match &self.file {
            Some(file) => ForPool::from_objects(&Objects::read(file)?, self.pool.as_deref())?,
            None => {
                let (context, namespace) = (self.context.as_deref(), self.namespace.as_deref());
                ForPool::from_cluster(context, namespace, self.pool.as_deref()).await?
            }
        };
        let hosts = find_mail_hosts(&self.domain, &pool, &self.mx, &self.dns_servers).await?;
        let explanation = Explanation::new(self.domain, hosts, &pool);
        let mut output = std::io::stdout().lock();
        match self.output {
            Output::Text => write!(output, "{}", text(&explanation))?,
            Output::Json => {
                serde_json::to_writer_pretty(&mut output, &explanation)?;
                writeln!(output)?;
            }
        }
        Ok(())
    }
}
