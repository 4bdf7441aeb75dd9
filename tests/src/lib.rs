//! The harness of the integration tests: a real kube-apiserver and etcd, and processes that can be killed.
//!
//! A test starts what it needs and owns it; dropping the owner ends exactly the processes it started and removes their
//! files. Nothing here waits for a fixed time: [`wait::eventually`] polls for a condition, and when the condition does
//! not come true, the error says what was seen last.
//!
//! - [`control_plane`]: an API server with etcd behind it, or a cluster the person running the tests points at
//! - [`crds`]: installs custom resource definitions, on old servers too
//! - [`process`]: starts programs, the `relaypool` binary above all, with their output in a log file
//! - [`wait`]: polls for a condition
//!
//! There is no kube-controller-manager: nothing collects objects whose owner is gone, nothing makes pods of a
//! StatefulSet, a deleted namespace stays `Terminating`, and volume claims are not bound.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod assets;
mod certificates;
mod ports;
mod scratch;

pub mod control_plane;
pub mod crds;
pub mod deployment;
pub mod process;
pub mod wait;

/// Makes aws-lc-rs the TLS crypto provider of this process. Calling it again changes nothing.
///
/// Needed before the first TLS connection: rustls refuses to choose a provider by itself.
pub fn install_crypto_provider() {
    // The only error is that a provider is installed already, by an earlier call.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
