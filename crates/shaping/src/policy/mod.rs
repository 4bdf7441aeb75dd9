//! What the MxPolicy objects say of a domain and its site.

mod effective;
mod index;
mod set;

pub use effective::{EffectivePolicy, MatchedBy, Origin, Setting};
pub use set::PolicySet;
