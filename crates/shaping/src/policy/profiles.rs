//! The built-in profiles: policies for large providers, from what is publicly known of them.

use std::sync::{Arc, LazyLock};

use relaypool_api::MxPolicy;
use relaypool_api::mx_policy::MxPolicySpec;

/// A built-in policy for one provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Name of the profile, and of the MxPolicy it is written as.
    pub name: Arc<str>,
    /// The MxPolicy object as YAML, with the sources of its facts as comments.
    pub yaml: &'static str,
    /// What it says.
    pub spec: MxPolicySpec,
}

macro_rules! yaml {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../profiles/", $name, ".yaml")))),+]
    };
}

/// Name and text of each, in the order of their names.
const FILES: [(&str, &str); 12] = yaml![
    "comcast",
    "free",
    "gmail",
    "gmx",
    "icloud",
    "laposte",
    "microsoft-365",
    "orange",
    "outlook",
    "sfr",
    "t-online",
    "yahoo",
];

/// All built-in profiles, in the order of their names.
pub fn profiles() -> &'static [Profile] {
    static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
        FILES
            .into_iter()
            .map(|(name, yaml)| {
                let policy: MxPolicy =
                    serde_yaml::from_str(yaml).expect("every profile is an MxPolicy; a test reads them all");
                Profile {
                    name: name.into(),
                    yaml,
                    spec: policy.spec,
                }
            })
            .collect()
    });
    &PROFILES
}
