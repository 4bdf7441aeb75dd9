//! What the MxPolicy objects, and the built-in profiles below them, say of a domain and its site.

mod effective;
mod index;
mod profiles;
mod set;

pub use effective::{EffectivePolicy, MatchedBy, Origin, Setting};
pub use profiles::{Profile, profiles};
pub use set::{Applies, PolicySet};
