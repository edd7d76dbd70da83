//! The name of a machine or a service: a DNS label, so that it can be a host name, a cgroup and a file name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// 1 to 63 of `a-z`, `0-9` and `-`, neither beginning nor ending with `-` (RFC 1123 §2.1, in lower case).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The longest name, in bytes.
    pub const MAX: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidName {
    /// Nothing between the quotes.
    Empty,
    /// More than [`Name::MAX`] bytes.
    TooLong,
    /// A character other than `a-z`, `0-9` and `-`.
    Character(char),
    /// `-` at the beginning or the end.
    Hyphen,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a name has at least one character"),
            Self::TooLong => write!(f, "a name has at most {} characters", Name::MAX),
            Self::Character(c) => write!(f, "a name consists of a-z, 0-9 and `-`, not {c:?}"),
            Self::Hyphen => f.write_str("a name neither begins nor ends with `-`"),
        }
    }
}

impl std::error::Error for InvalidName {}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if let Some(c) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(InvalidName::Character(c));
        }
        if text.len() > Self::MAX {
            return Err(InvalidName::TooLong);
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(InvalidName::Hyphen);
        }
        Ok(Self(text))
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label() {
        for good in ["a", "web", "db-2", "0", &"x".repeat(63)] {
            assert_eq!(Name::try_from(good.to_owned()).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", InvalidName::Empty),
            ("Web", InvalidName::Character('W')),
            ("a/b", InvalidName::Character('/')),
            ("..", InvalidName::Character('.')),
            ("-a", InvalidName::Hyphen),
            ("a-", InvalidName::Hyphen),
            (&"x".repeat(64), InvalidName::TooLong),
        ] {
            assert_eq!(Name::try_from(bad.to_owned()), Err(why), "{bad}");
        }
    }

    #[test]
    fn a_name_is_checked_when_it_is_read() {
        assert!(serde_json::from_str::<Name>("\"../etc\"").is_err());
    }
}
