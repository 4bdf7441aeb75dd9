//! SMTP client sessions over any async stream.
