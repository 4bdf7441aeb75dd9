//! What texts that stay texts must look like: rules over one string, and their plain checks.

use std::net::IpAddr;

use crate::cel::CelRule;

pub(crate) const IP_ADDRESS: CelRule = CelRule::new(
    "self.matches('^([0-9]{1,3}([.][0-9]{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$')",
    "must be an IPv4 or IPv6 address without a prefix length, such as 192.0.2.10",
);

pub(crate) const HOST_AND_PORT: CelRule = CelRule::new(
    r"self.matches('^([^\\s/:@\\[\\]]+|\\[[0-9a-fA-F:.]+\\]):[0-9]{1,5}$')",
    "must be host:port, such as proxy.example.com:1080; an IPv6 address stands in brackets",
);

/// A name, an IPv4 address or an IPv6 address in brackets, and a port other than 0.
pub(super) fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host_is_good = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))),
        None => {
            !host.is_empty()
                && !host.contains(|character: char| character.is_whitespace() || "/:@[]".contains(character))
        }
    };
    let port_is_good = (1..=5).contains(&port.len())
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0);
    host_is_good && port_is_good
}

pub(crate) const TIME_OF_DAY: CelRule = CelRule::new(
    "self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')",
    "must be a time of day HH:MM, such as 22:00",
);

/// `HH:MM`, 00:00 to 23:59.
pub(super) fn is_time_of_day(text: &str) -> bool {
    let part = |part: &str, limit: u8| {
        part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse::<u8>().is_ok_and(|n| n < limit)
    };
    text.split_once(':')
        .is_some_and(|(hour, minute)| part(hour, 24) && part(minute, 60))
}

pub(crate) const SIZE: CelRule = CelRule::new(
    "self.matches('^[0-9]+([.][0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$') && self.matches('[1-9]')",
    "must be a size such as 10Gi",
);

/// A Kubernetes quantity of bytes, more than none.
pub(super) fn is_size(text: &str) -> bool {
    let number_ends = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_ends);
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let number_is_good = match number.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(number),
    };
    number_is_good
        && number.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
        && ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "k", "M", "G", "T", "P", "E"].contains(&suffix)
}

pub(crate) const STORE_URL: CelRule = CelRule::new(
    r"self.matches('^(s3|gs|azure)://[^\\s/]+(/[^\\s]*)?$')",
    "must be s3://bucket/prefix, gs://bucket/prefix or azure://container/prefix",
);

/// The URL of a bucket or container, with or without a prefix.
pub(super) fn is_store_url(text: &str) -> bool {
    ["s3://", "gs://", "azure://"].iter().any(|scheme| {
        text.strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace))
    })
}

/// An address and a prefix length, such as `10.0.0.0/8`.
pub(super) fn is_network(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, length)| {
        let longest = match address.parse() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        length.bytes().all(|byte| byte.is_ascii_digit()) && length.parse::<u8>().is_ok_and(|length| length <= longest)
    })
}

pub(crate) const MEDIA_TYPE: CelRule = CelRule::new(
    r#"self.matches('^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+( *; *[A-Za-z0-9!#$&^_.+-]+=([A-Za-z0-9!#$&^_.+-]+|"[ !#-:<-\\[\\]-~]*"))*$')"#,
    "must be a MIME type such as application/pdf",
);

/// `type/subtype`, with parameters or without (RFC 2045 section 5.1). A quoted value must not hold a semicolon, a quote or
/// a backslash.
pub(super) fn is_media_type(text: &str) -> bool {
    let is_token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    let is_quoted = |text: &str| {
        text.strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .is_some_and(|inner| {
                inner
                    .bytes()
                    .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\')
            })
    };
    let mut parts = text.split(';');
    let name = parts.next().unwrap_or_default();
    let parameters: Vec<&str> = parts.collect();
    // Spaces are for the separators only: none before the type and none behind the last part.
    let name = if parameters.is_empty() {
        name
    } else {
        name.trim_end_matches(' ')
    };
    let last = parameters.len().saturating_sub(1);
    name.split_once('/')
        .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
        && parameters.iter().enumerate().all(|(index, parameter)| {
            let parameter = parameter.trim_start_matches(' ');
            let parameter = if index == last {
                parameter
            } else {
                parameter.trim_end_matches(' ')
            };
            parameter
                .split_once('=')
                .is_some_and(|(name, value)| is_token(name) && (is_token(value) || is_quoted(value)))
        })
}

pub(crate) const FILE_NAME: CelRule = CelRule::new(
    r"!self.matches('[\\x00-\\x1f\\x7f/\\\\]')",
    "must not have control characters, slashes or backslashes",
);

/// A name that no mail program can take for a path or for another header.
pub(super) fn is_file_name(text: &str) -> bool {
    !text.contains(|character: char| character.is_ascii_control() || "/\\".contains(character))
}

pub(crate) const CONTENT_ID: CelRule = CelRule::new(
    "self.matches('^[!-;=?-~]+$')",
    "must be printable ASCII without spaces and angle brackets, such as logo@example.com",
);

/// What may stand between the angle brackets of a Content-ID header.
pub(super) fn is_content_id(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'<' && byte != b'>')
}

pub(crate) const HEADER_NAME: CelRule = CelRule::new(
    "self.matches('^[!-9;-~]+$')",
    "a header name is printable ASCII without a colon or spaces",
);

/// A header field name (RFC 5322 section 2.2).
pub(super) fn is_header_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

pub(crate) const HTTPS_URL: CelRule = CelRule::new(
    "self.startsWith('https://')",
    "listUnsubscribe.url must start with https://",
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::cel::evaluation::holds;

    type Check = fn(&str) -> bool;

    /// Rules whose expression and plain check accept exactly the same texts.
    const EXACT: [(CelRule, Check); 6] = [
        (TIME_OF_DAY, is_time_of_day),
        (SIZE, is_size),
        (MEDIA_TYPE, is_media_type),
        (FILE_NAME, is_file_name),
        (CONTENT_ID, is_content_id),
        (HEADER_NAME, is_header_name),
    ];

    #[test]
    fn texts_are_told_apart() {
        let tables: [(CelRule, Check, &[&str], &[&str]); 6] = [
            (
                TIME_OF_DAY,
                is_time_of_day,
                &["00:00", "23:59", "08:30"],
                &["", "24:00", "12:60", "8:30", "08:3", "08:30:00", "+8:30", "0８:30"],
            ),
            (
                SIZE,
                is_size,
                &["10Gi", "1.5Ti", "500M", "1", "0.5Ei"],
                &[
                    "", "Gi", "0", "0.0Gi", "10 Gi", "10GB", "-1Gi", "1.Gi", ".5Gi", "1.2.3", "10gi", "1e3",
                ],
            ),
            (
                MEDIA_TYPE,
                is_media_type,
                &[
                    "application/pdf",
                    "image/svg+xml",
                    "text/plain; charset=utf-8",
                    "a/b;c=\"d e\" ; f=g",
                    "a/b;c=\"\"",
                ],
                &[
                    "",
                    "pdf",
                    "a/",
                    "/b",
                    "a/b/c",
                    "a/b;",
                    "a/b; c",
                    "a/b; c=",
                    "a /b",
                    "a/b ",
                    "a/b;c=d ",
                    "a/b;c=\"d",
                    "a/b;c=\"d;e\"",
                    "a/b\r\nX: y",
                    "a/b;c=\"d\"e",
                    "a/b;c=\"",
                ],
            ),
            (
                FILE_NAME,
                is_file_name,
                &["a.pdf", "übersicht 1.pdf", ""],
                &["a/b", "a\\b", "a\nb", "a\u{7f}"],
            ),
            (
                CONTENT_ID,
                is_content_id,
                &["logo", "logo@example.com"],
                &["", "<a>", "a b", "ü"],
            ),
            (
                HEADER_NAME,
                is_header_name,
                &["X-A", "!#"],
                &["", "X:A", "X A", "X\r\n", "Ü"],
            ),
        ];
        for (rule, check, good, bad) in tables {
            for (text, expected) in good
                .iter()
                .map(|text| (text, true))
                .chain(bad.iter().map(|text| (text, false)))
            {
                assert_eq!(check(text), expected, "{text:?} by function");
                assert_eq!(holds(rule, &json!(text)), expected, "{text:?} by CEL");
            }
        }
    }

    #[test]
    fn rules_that_accept_more_than_the_function() {
        let tables: [(CelRule, Check, &[&str], &[&str]); 2] = [
            (
                HOST_AND_PORT,
                is_host_and_port,
                &[
                    "proxy:1080",
                    "10.0.0.1:1",
                    "[2001:db8::1]:65535",
                    "proxy.example.com:443",
                ],
                &[
                    "",
                    "proxy",
                    ":1080",
                    "proxy:",
                    "a b:1",
                    "http://a:1",
                    "2001:db8::1:1080",
                    "u@a:1",
                    "a:123456",
                    "[a b]:1",
                ],
            ),
            (
                STORE_URL,
                is_store_url,
                &["s3://lists", "gs://lists/", "azure://lists/2026/all"],
                &[
                    "",
                    "s3://",
                    "s3:///a",
                    "https://a/b",
                    "file:///etc",
                    "s3://a b",
                    "S3://a",
                ],
            ),
        ];
        for (rule, check, good, bad) in tables {
            for (text, expected) in good
                .iter()
                .map(|text| (text, true))
                .chain(bad.iter().map(|text| (text, false)))
            {
                assert_eq!(check(text), expected, "{text:?} by function");
                assert_eq!(holds(rule, &json!(text)), expected, "{text:?} by CEL");
            }
        }
        for text in ["proxy:0", "proxy:70000", "[1.2.3.4]:1"] {
            assert!(!is_host_and_port(text), "{text}");
        }
    }

    #[test]
    fn networks_are_told_apart() {
        for good in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "192.0.2.1/32",
            "2001:db8::/32",
            "::/0",
            "::1/128",
        ] {
            assert!(is_network(good), "{good}");
        }
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "a/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
        ] {
            assert!(!is_network(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn exact_rules_agree(text in prop_oneof!["[ -~]{0,12}", "[a/b;c=\" ]{0,12}", "[0-9.:GiMk]{0,7}", any::<String>()]) {
            for (rule, check) in EXACT {
                prop_assert_eq!(holds(rule, &json!(&text)), check(&text), "{}", rule.rule);
            }
        }

        #[test]
        fn what_the_function_accepts_the_rule_accepts(
            text in prop_oneof!["(s3|gs|azure|a)://[a-z/. ]{0,8}", "[a-z.\\[\\]:0-9@/ ]{0,12}:[0-9]{0,6}", any::<String>()]
        ) {
            for (rule, check) in [(HOST_AND_PORT, is_host_and_port as Check), (STORE_URL, is_store_url)] {
                prop_assert!(!check(&text) || holds(rule, &json!(&text)), "{}", rule.rule);
            }
        }

        #[test]
        fn no_address_is_refused(address: IpAddr, port: u16, length in 0..=32_u8) {
            use crate::relay_pool::name_server;
            use crate::validation::relay_pool::{ALLOWED_NETWORKS, NAME_SERVERS};

            prop_assert!(holds(IP_ADDRESS, &json!(address)));
            let network = format!("{address}/{length}");
            prop_assert!(is_network(&network) && holds(ALLOWED_NETWORKS, &json!([&network])));
            for server in [address.to_string(), std::net::SocketAddr::new(address, port).to_string()] {
                prop_assert!(name_server(&server).is_some() && holds(NAME_SERVERS, &json!([&server])), "{}", server);
            }
        }
    }
}
