//! What words in a reply mean, whoever says them: the lines of `data/phrases.tsv`.

use std::sync::LazyLock;

use super::Stage;
use super::words::Words;
use crate::category::Category;

const TABLE: &str = include_str!("../../data/phrases.tsv");

/// One line of the table.
#[derive(Debug)]
struct Line {
    strength: Strength,
    in_temporary: bool,
    in_permanent: bool,
    meaning: Meaning,
    phrases: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strength {
    /// Means one thing wherever it stands.
    Phrase,
    /// Means something where nothing better is said.
    Word,
}

#[derive(Debug, Clone, Copy)]
enum Meaning {
    Category(Category),
    /// Bad reputation: a block, or in a 4xx reply a deferral.
    Reputation,
    /// Spam: the content, or, said before there is content, the reputation.
    Spam,
}

/// What the first phrase in the text means that means one thing wherever it stands.
pub(super) fn phrase(words: &Words, permanent: bool, stage: Stage) -> Option<Category> {
    first(Strength::Phrase, words, permanent, stage)
}

/// What the first word in the text means that means something where nothing better is said.
pub(super) fn word(words: &Words, permanent: bool, stage: Stage) -> Option<Category> {
    first(Strength::Word, words, permanent, stage)
}

fn first(strength: Strength, words: &Words, permanent: bool, stage: Stage) -> Option<Category> {
    static LINES: LazyLock<Vec<Line>> = LazyLock::new(|| {
        rows()
            .map(|row| Line::of(row).expect("every line of the table is good; a test shows it"))
            .collect()
    });
    LINES
        .iter()
        .filter(|line| line.strength == strength)
        .filter(|line| {
            if permanent {
                line.in_permanent
            } else {
                line.in_temporary
            }
        })
        .find(|line| line.phrases.iter().any(|phrase| words.have(phrase)))
        .map(|line| line.meaning.in_reply(permanent, stage))
}

/// The lines of the table without comments and heading.
fn rows() -> impl Iterator<Item = &'static str> {
    TABLE.lines().filter(|line| !line.starts_with('#')).skip(1)
}

impl Line {
    fn of(row: &str) -> Option<Self> {
        let columns: Vec<&str> = row.split('\t').collect();
        let [strength, replies, meaning, phrases] = columns[..] else {
            return None;
        };
        let (in_temporary, in_permanent) = match replies {
            "any" => (true, true),
            "4xx" => (true, false),
            "5xx" => (false, true),
            _ => return None,
        };
        Some(Self {
            strength: match strength {
                "phrase" => Strength::Phrase,
                "word" => Strength::Word,
                _ => return None,
            },
            in_temporary,
            in_permanent,
            meaning: match meaning {
                "reputation" => Meaning::Reputation,
                "spam" => Meaning::Spam,
                category => Meaning::Category(category.parse().ok()?),
            },
            phrases: phrases.split("; ").map(|phrase| phrase.replace('$', " ")).collect(),
        })
    }
}

impl Meaning {
    fn in_reply(self, permanent: bool, stage: Stage) -> Category {
        let reputation = match permanent {
            true => Category::ReputationBlock,
            false => Category::ReputationDeferral,
        };
        match (self, stage) {
            (Self::Category(category), _) => category,
            (Self::Reputation, _) | (Self::Spam, Stage::Opening | Stage::Sender) => reputation,
            (Self::Spam, Stage::Recipient | Stage::Content | Stage::Unknown) => Category::SpamContent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_good() {
        for row in rows() {
            let line = Line::of(row).unwrap_or_else(|| panic!("{row}"));
            for phrase in &line.phrases {
                let searchable = phrase.split(' ').all(|word| word.chars().all(char::is_alphanumeric));
                assert!(
                    searchable && !phrase.trim().is_empty() && *phrase == phrase.to_lowercase(),
                    "'{phrase}'"
                );
            }
        }
        assert!(rows().count() > 20);
    }
}
