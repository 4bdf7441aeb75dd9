//! Templates, MIME composition and DKIM signatures.
