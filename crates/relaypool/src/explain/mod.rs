//! Why mail to a domain is sent as it is.
//!
//! The same code answers as sends: hosts come from the sender's resolver, settings and lanes from the policy set.

mod explanation;
mod for_pool;
mod mail_hosts;
mod settings;
mod text;

pub use explanation::Explanation;
pub use for_pool::ForPool;
pub use mail_hosts::find_mail_hosts;
pub use text::text;
