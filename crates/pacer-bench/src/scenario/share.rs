use serde::{Deserialize, Serialize};

/// A share as a fraction, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share(f64);

/// The number is no share.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is not a share: it must be from 0 to 1")]
pub struct ShareError(f64);

impl Share {
    /// The fraction.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// A fraction of our own, brought between 0 and 1.
    pub(crate) fn clamped(fraction: f64) -> Self {
        Self(fraction.clamp(0.0, 1.0))
    }
}

impl TryFrom<f64> for Share {
    type Error = ShareError;

    fn try_from(fraction: f64) -> Result<Self, ShareError> {
        if (0.0..=1.0).contains(&fraction) {
            Ok(Self(fraction))
        } else {
            Err(ShareError(fraction))
        }
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> Self {
        share.0
    }
}
