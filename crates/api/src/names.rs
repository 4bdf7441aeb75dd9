//! Names that more than one part of the system must agree on: labels, annotations, field managers, derived object names.

use crate::message::SigningKeyRef;

/// The API group.
pub const GROUP: &str = "relaypool.dev";
/// Label of what belongs to one Delivery: its name, cut to 63 characters.
pub const DELIVERY_LABEL: &str = "relaypool.dev/delivery";
/// Label of what belongs to one pool.
pub const POOL_LABEL: &str = "relaypool.dev/pool";
/// Label of a DeliverySlice: the sender that works on it. The message slice has none.
pub const SENDER_LABEL: &str = "relaypool.dev/sender";
/// Field manager of the controller.
pub const CONTROLLER_MANAGER: &str = "relaypool-controller";
/// Field manager of the controller for the shares of pool-wide limits: they are written by themselves, and only over what
/// they were computed from.
pub const SHARES_MANAGER: &str = "relaypool-controller-shares";

/// Field manager of what is said of an address's sites. The same for every sender: an address has one owner, and when it
/// gets another, what the one before said must go.
pub const SITES_MANAGER: &str = "relaypool-sites";

/// Field manager of what is said of an address's warm-up. The same for every sender: an address has one owner, and when it
/// gets another, that one goes on writing the same fields.
pub const WARM_UP_MANAGER: &str = "relaypool-warm-up";

/// Name of the sender with this ordinal.
pub fn sender_name(pool: &str, ordinal: u32) -> String {
    format!("{pool}-{ordinal}")
}

/// Field manager of one sender.
pub fn sender_manager(sender: &str) -> String {
    format!("relaypool-sender-{sender}")
}

/// Name of the Secret with all signing keys of a pool; one entry for each key version, named by [`signing_key_entry`].
pub fn signing_keys_secret(pool: &str) -> String {
    format!("{pool}-dkim-keys")
}

/// Name of one key version within the Secret of a pool, and of the file where the Secret is mounted.
pub fn signing_key_entry(key: &SigningKeyRef) -> String {
    format!("{}._domainkey.{}.{}.pem", key.selector, key.domain, key.version)
}

/// A label value made of any object name: names may have 253 characters, label values 63. A longer name keeps its start
/// and ends in a digest, so that two long names stay apart.
pub fn label_value(name: &str) -> String {
    if name.len() <= 63 {
        return name.to_owned();
    }
    // FNV-1a: stable over versions and machines, which std's hasher does not promise.
    let digest = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let start: String = name.chars().take(46).collect();
    format!("{}-{digest:016x}", start.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_stay_apart() {
        let (one, two) = (format!("{}-one", "a".repeat(100)), format!("{}-two", "a".repeat(100)));
        assert_ne!(label_value(&one), label_value(&two));
        assert!(label_value(&one).len() <= 63);
        assert_eq!(label_value("short"), "short");
    }
}
