//! What a host offers in its answer to EHLO.

use smtp_proto::{
    EXT_8BIT_MIME, EXT_CHUNKING, EXT_ENHANCED_STATUS_CODES, EXT_PIPELINING, EXT_SIZE, EXT_SMTP_UTF8, EXT_START_TLS,
    EhloResponse,
};

use super::reply::RawReply;

/// The service extensions of a host that matter for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// PIPELINING (RFC 2920): several commands in one write.
    pub pipelining: bool,
    /// SIZE (RFC 1870): MAIL may say how large the message is.
    pub size: bool,
    /// The largest message it accepts, in octets; `None` when it names no limit.
    pub size_limit: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// STARTTLS (RFC 3207). Hosts do not offer it again once TLS is in use.
    pub starttls: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034). Enhanced codes are read whether it is offered or not.
    pub enhanced_status_codes: bool,
    /// CHUNKING (RFC 3030). Seen, not used.
    pub chunking: bool,
}

impl Capabilities {
    /// Reads the lines of a positive reply to EHLO. A line that cannot be read is an extension we do not know: it does not
    /// cost the others.
    pub(super) fn from_ehlo(reply: &RawReply) -> Self {
        let mut capabilities = Self::default();
        for line in reply.texts().skip(1) {
            let alone = [b"250-host\r\n250 ", line, b"\r\n"].concat();
            if let Ok(ehlo) = EhloResponse::parse(&mut alone.iter()) {
                capabilities.add(&ehlo);
            }
        }
        capabilities
    }

    fn add(&mut self, ehlo: &EhloResponse<String>) {
        self.pipelining |= ehlo.has_capability(EXT_PIPELINING);
        self.eight_bit_mime |= ehlo.has_capability(EXT_8BIT_MIME);
        self.smtputf8 |= ehlo.has_capability(EXT_SMTP_UTF8);
        self.starttls |= ehlo.has_capability(EXT_START_TLS);
        self.enhanced_status_codes |= ehlo.has_capability(EXT_ENHANCED_STATUS_CODES);
        self.chunking |= ehlo.has_capability(EXT_CHUNKING);
        if ehlo.has_capability(EXT_SIZE) {
            self.size = true;
            // 0 means no limit; so does a number the parser could not read.
            self.size_limit = u64::try_from(ehlo.size).ok().filter(|size| *size > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::ReplyBuffer;
    use super::*;

    fn offered(lines: &str) -> Capabilities {
        let mut buffer = ReplyBuffer::default();
        buffer.space().extend_from_slice(lines.as_bytes());
        Capabilities::from_ehlo(&buffer.next().unwrap().unwrap())
    }

    #[test]
    fn all_extensions_are_seen() {
        let all = "250-mx.example says hello\r\n250-PIPELINING\r\n250-size 52428800\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
                   250-STARTTLS\r\n250-EnhancedStatusCodes\r\n250-CHUNKING\r\n250 HELP\r\n";
        assert_eq!(
            offered(all),
            Capabilities {
                pipelining: true,
                size: true,
                size_limit: Some(52_428_800),
                eight_bit_mime: true,
                smtputf8: true,
                starttls: true,
                enhanced_status_codes: true,
                chunking: true,
            }
        );
    }

    #[test]
    fn the_host_name_is_no_extension() {
        assert_eq!(offered("250 PIPELINING\r\n"), Capabilities::default());
    }

    #[test]
    fn odd_lines_do_not_hide_the_others() {
        let odd = "250-mx\r\n250-\r\n250-AUTH=LOGIN\r\n250-NO-SOLICITING \u{e9}\r\n250-FUTURERELEASE x y\r\n250-SIZE\r\n250-STARTTLS \r\n250\r\n";
        let seen = offered(odd);
        assert!(seen.starttls && seen.size);
        assert_eq!(seen.size_limit, None);
    }

    #[test]
    fn sizes_that_are_no_limit() {
        for size in ["SIZE", "SIZE 0", "SIZE many", "SIZE 18446744073709551615"] {
            let seen = offered(&format!("250-mx\r\n250 {size}\r\n"));
            assert!(seen.size, "{size}");
            assert_eq!(seen.size_limit, None, "{size}");
        }
    }
}
