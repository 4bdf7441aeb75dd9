use relaypool_api::Domain;
use serde::{Deserialize, Serialize};

use super::MxHost;

/// What DNS says about one name. A name that is listed nowhere does not exist (NXDOMAIN).
///
/// An entry for a provider's own domain replaces the MX records that domain would have. It changes only what DNS says: a
/// provider takes mail for the domains listed under it, and refuses the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum Zone {
    /// MX records, in any order. A host is an MX host of some provider, or a name listed here as `unreachable`,
    /// `servFail` or `missing`.
    Mx {
        /// The domain.
        name: Domain,
        /// The hosts and their preferences.
        hosts: Vec<MxHost>,
    },
    /// `MX 0 .`: the domain takes no mail (RFC 7505).
    NullMx {
        /// The domain.
        name: Domain,
    },
    /// No MX record, an address only: the domain itself is the MX host (RFC 5321 section 5.1).
    ImplicitMx {
        /// The domain.
        name: Domain,
        /// The MX host of a provider whose address it has.
        host: Domain,
    },
    /// Every query for this name, and below it, fails with SERVFAIL.
    ServFail {
        /// The name.
        name: Domain,
    },
    /// A host with an address where connections are refused.
    Unreachable {
        /// The host.
        name: Domain,
    },
    /// A name that does not exist, said aloud so that an MX record may point at it.
    Missing {
        /// The name.
        name: Domain,
    },
}

impl Zone {
    /// The name the facts are about.
    pub const fn name(&self) -> &Domain {
        match self {
            Self::Mx { name, .. }
            | Self::NullMx { name }
            | Self::ImplicitMx { name, .. }
            | Self::ServFail { name }
            | Self::Unreachable { name }
            | Self::Missing { name } => name,
        }
    }
}
