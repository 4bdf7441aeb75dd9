//! From a reply to a verdict.
//!
//! What is read, strongest first, until something speaks:
//!
//! 1. a phrase that means one thing wherever it stands (`phrases`): hosts put words with more care than codes;
//! 2. an enhanced status code with a narrow meaning, such as 5.2.2 (`enhanced`);
//! 3. a word that means something where nothing better is said, such as "blocked" (`phrases`);
//! 4. an enhanced status code with a wide meaning, such as 5.7.1, together with the phase (`enhanced`);
//! 5. the three-digit code together with the phase (`code`).

mod code;
mod enhanced;
mod hint;
mod phrases;
mod words;

use relaypool_api::reply::{EnhancedCode, Phase, Reply};

use crate::category::Category;
use crate::verdict::{Basis, Hint, PathBearing, Verdict};
use words::Words;

/// A reply and where it came.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// What the host answered; none where nobody knows, as for a reply quoted in a bounce message.
    pub phase: Option<Phase>,
    /// What it answered.
    pub reply: &'a Reply,
}

impl<'a> Reading<'a> {
    /// A reply in a session.
    pub fn new(phase: Phase, reply: &'a Reply) -> Self {
        Self {
            phase: Some(phase),
            reply,
        }
    }

    /// A reply that a bounce message quotes.
    pub fn quoted(reply: &'a Reply) -> Self {
        Self { phase: None, reply }
    }
}

/// How far the session had come. What a code means depends on what the host knew when it said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Only the sending IP, and the name it gives.
    Opening,
    /// The envelope sender too.
    Sender,
    /// A recipient too.
    Recipient,
    /// The message too.
    Content,
    /// Not known.
    Unknown,
}

impl From<Option<Phase>> for Stage {
    fn from(phase: Option<Phase>) -> Self {
        match phase {
            None => Self::Unknown,
            Some(Phase::Connect | Phase::Greeting | Phase::Ehlo | Phase::StartTls) => Self::Opening,
            Some(Phase::MailFrom) => Self::Sender,
            Some(Phase::RcptTo) => Self::Recipient,
            Some(Phase::Data | Phase::EndOfData) => Self::Content,
        }
    }
}

/// Judges a reply. Every reply has a verdict; one that is neither 4xx nor 5xx is an answer nobody asked for, and so a
/// protocol error.
pub fn classify(reading: &Reading<'_>) -> Verdict {
    let reply = reading.reply;
    let stage = Stage::from(reading.phase);
    let permanent = reply.code.is_permanent();
    let enhanced = enhanced::of(reply);
    let (category, basis) = meaning(reply, enhanced, stage);
    Verdict {
        category,
        action: category.action(permanent),
        phase: reading.phase,
        hint: Hint {
            retry_after: hint::retry_after(&reply.text),
        },
        basis,
        permanent,
        path: is_about_path(category, reply, enhanced, stage),
    }
}

fn meaning(reply: &Reply, enhanced: Option<EnhancedCode>, stage: Stage) -> (Category, Basis) {
    if !reply.code.is_transient() && !reply.code.is_permanent() {
        return (Category::ProtocolError, Basis::Code);
    }
    let permanent = reply.code.is_permanent();
    let words = Words::of(&reply.text);
    let found = |category: Option<Category>, basis| category.map(|category| (category, basis));
    found(phrases::phrase(&words, permanent, stage), Basis::Phrase)
        .or_else(|| found(enhanced::narrow(enhanced?, permanent), Basis::EnhancedCode))
        .or_else(|| found(phrases::word(&words, permanent, stage), Basis::Word))
        .or_else(|| found(enhanced::wide(enhanced?, reply.code, stage), Basis::WideEnhancedCode))
        .unwrap_or_else(|| (code::meaning(reply.code, stage), Basis::Code))
}

/// Whether a refusal is news about the path. Beside what the category says: whatever comes before a recipient was named
/// cannot be about the recipient; a 421 ends the session for every message on it; and a host that reports trouble with
/// itself or its network (RFC 3463 subjects 3 and 4) has it for every recipient.
fn is_about_path(category: Category, reply: &Reply, enhanced: Option<EnhancedCode>, stage: Stage) -> bool {
    match PathBearing::of(category) {
        PathBearing::Always => true,
        PathBearing::Never => false,
        PathBearing::Depends => {
            let trouble_of_the_host = category == Category::Transient
                && !reply.code.is_permanent()
                && enhanced.is_some_and(|code| matches!(code.subject, 3 | 4));
            matches!(stage, Stage::Opening | Stage::Sender) || reply.code.get() == 421 || trouble_of_the_host
        }
    }
}

#[cfg(test)]
mod tests;
