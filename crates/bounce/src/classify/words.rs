//! A reply's text as words that can be searched.

/// The text in lower case, every run of other characters than letters and digits as one space, with a space at both ends.
///
/// Left out are addresses, and all of a URL but its host: they have words of their own that mean nothing here, such as
/// `spam@example.com` or `/errors/blocked.html`. The host of a URL stays, as it often names the block list.
pub(super) struct Words(String);

impl Words {
    pub(super) fn of(text: &str) -> Self {
        let mut words = String::with_capacity(text.len() + 2);
        words.push(' ');
        for token in text.split_whitespace().filter(|token| !token.contains('@')) {
            let token = match token.split_once("://") {
                Some((_, address)) => address.split(['/', '?', '#']).next().unwrap_or_default(),
                None => token,
            };
            for character in token.chars() {
                if character.is_alphanumeric() {
                    words.extend(character.to_lowercase());
                } else {
                    end_word(&mut words);
                }
            }
            end_word(&mut words);
        }
        Self(words)
    }

    /// True when the words of `phrase` occur in this order, the last one possibly with an ending: "rate limit" is in
    /// "rate limited". A phrase that ends in a space has no such ending.
    pub(super) fn have(&self, phrase: &str) -> bool {
        self.0.match_indices(phrase).any(|(at, _)| self.0[..at].ends_with(' '))
    }
}

fn end_word(words: &mut String) {
    if !words.ends_with(' ') {
        words.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_whole_words_and_their_endings() {
        let words = Words::of("Mail-box FULL;\tover-quota (see <full@example.com>)");
        assert!(words.have("mail box full"));
        assert!(words.have("over quota "));
        assert!(words.have("quot"));
        assert!(!words.have("quot "));
        assert!(!words.have("box fu "));
        assert!(!words.have("ull"));
        assert!(!words.have("example"));
    }

    #[test]
    fn of_a_url_only_the_host_counts() {
        let words = Words::of("see https://www.spamhaus.org/blocked?x=virus. Or not");
        assert!(words.have("spamhaus"));
        assert!(words.have("or not"));
        assert!(!words.have("blocked"));
        assert!(!words.have("virus"));
    }

    #[test]
    fn survives_any_text() {
        for text in ["", " ", "://", "@", "\u{130}\u{0}ß", "://x", "é"] {
            let words = Words::of(text);
            assert!(words.0.starts_with(' ') && words.0.ends_with(' '), "{text:?}");
        }
    }
}
