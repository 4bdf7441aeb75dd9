//! The one binary of Relaypool: operator, sender, local mode, demo and tools.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod admin;
mod bench;
mod commands;
mod demo;
mod explain;
mod local;

use std::io::IsTerminal;
use std::path::Path;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Pools of outbound mail servers, as Kubernetes objects.
#[derive(Parser)]
#[command(name = "relaypool", version, about, propagate_version = true)]
struct Arguments {
    /// Write logs as JSON, one object a line.
    #[arg(long, global = true, env = "RELAYPOOL_LOG_JSON")]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send 2 000 messages to simulated providers on this machine, and show what became of them. Needs nothing.
    Demo(commands::demo::Demo),
    /// Run the deliveries of a folder of YAML files in this process, without a cluster.
    Local(commands::local::Local),
    /// Run the operator.
    Controller(commands::controller::Controller),
    /// Run one sender of a pool.
    Sender(commands::sender::Sender),
    /// Run simulated mail providers with a DNS server of their own.
    Simulator(commands::simulator::Simulator),
    /// Show how mail to a domain is sent: its MX hosts, the policies that apply, each setting and who says so, and how each
    /// sending IP stands with it.
    Explain(commands::explain::Explain),
    /// Print the built-in profiles of large providers as MxPolicies.
    Policies(commands::policies::Policies),
    /// Print the CustomResourceDefinitions, or write them to a folder.
    Crds(commands::crds::Crds),
    /// Print the reference of all resources in Markdown, or write it to a file.
    Reference(commands::reference::Reference),
    /// Measure.
    Bench(commands::bench::Bench),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::from_arg_matches(&named_as_called().get_matches()).unwrap_or_else(|error| error.exit());
    start_logging(&arguments);
    // The tree has one crypto provider; what does not name it (the Kubernetes client) takes it from here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            match arguments.command {
                Command::Demo(demo) => demo.run().await,
                Command::Local(local) => local.run().await,
                Command::Controller(controller) => controller.run().await,
                Command::Sender(sender) => sender.run().await,
                Command::Simulator(simulator) => simulator.run().await,
                Command::Explain(explain) => explain.run().await,
                Command::Policies(policies) => policies.run(),
                Command::Crds(crds) => crds.run(),
                Command::Reference(reference) => reference.run(),
                Command::Bench(bench) => bench.run().await,
            }
        })
}

/// The commands under the name that the user typed: as a plugin (`kubectl-relaypool` in the path) it is `kubectl relaypool`.
fn named_as_called() -> clap::Command {
    let called = std::env::args_os().next().unwrap_or_default();
    let is_plugin = Path::new(&called)
        .file_stem()
        .is_some_and(|name| name == "kubectl-relaypool");
    let command = Arguments::command();
    if is_plugin {
        command.bin_name("kubectl relaypool")
    } else {
        command
    }
}

/// Logs go to standard error. Servers tell what they do; tools for people only what is wrong, as their output is elsewhere.
fn start_logging(arguments: &Arguments) {
    let default = match arguments.command {
        Command::Controller(_) | Command::Sender(_) | Command::Simulator(_) => "info",
        _ => "warn",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if arguments.log_json {
        logs.json().init()
    } else {
        logs.init()
    }
}
