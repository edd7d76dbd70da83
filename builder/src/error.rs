//! What a stage fails with: a sentence that stands after `error:`, and a hint where there is one.
//!
//! Nothing in the builder acts on the kind of a failure, every failure ends in front of a person: so there is one
//! type for all stages, and what counts is that the sentence names the object and the cause.

use std::fmt;

/// A failure, as its reader meets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    sentence: String,
    hint: Option<String>,
}

/// A result of a stage.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure that is described by `sentence`: verb, object in backticks, cause; no capital, no full stop.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), hint: None }
    }

    /// The same failure with a proposal of what to do, printed on a line of its own.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with a proposal, unless it has a better one already.
    #[must_use]
    pub fn or_hint(self, hint: impl Into<String>) -> Self {
        if self.hint.is_some() { self } else { self.hint(hint) }
    }

    /// The same failure as part of a larger deed: `{outer}: {sentence}`. A cause that came through a stream may
    /// have named the deed already; it is named once.
    #[must_use]
    pub fn within(mut self, outer: impl fmt::Display) -> Self {
        let outer = format!("{outer}: ");
        self.sentence = format!("{outer}{}", self.sentence.replacen(&outer, "", 1));
        self
    }

    /// What to do about it, if anything is known to help.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Error {}

/// Lets an [`Error`] travel through code that speaks `std::io`, such as a reader that verifies what it reads.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

/// The value, or nothing and its errors among the others: for stages whose parts do not depend on each other.
pub fn gather<T, E: Into<Vec<Error>>>(errors: &mut Vec<Error>, result: Result<T, E>) -> Option<T> {
    result.map_err(|failed| errors.extend(failed.into())).ok()
}

impl From<Error> for Vec<Error> {
    fn from(error: Error) -> Self {
        vec![error]
    }
}

/// Says what was being done when a foreign error turned up.
pub trait Context<T> {
    /// `cannot {doing}: {cause}`, where `doing` is a verb and its object: ``read `web.toml` ``.
    fn doing<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn doing<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|cause| Error::new(format!("cannot {}: {cause}", doing())))
    }
}

/// The name of a file as messages show it: escaped, and cut where nobody would read on.
pub fn shown(name: &[u8]) -> String {
    match name.get(..200) {
        Some(start) if name.len() > 200 => format!("{}…", start.escape_ascii()),
        _ => name.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_a_sentence_from_the_outermost_deed_to_the_cause() {
        let cause: std::result::Result<(), _> = Err(std::io::Error::from_raw_os_error(28));
        let error =
            cause.doing(|| "write `a.img`").unwrap_err().within("service.web").hint("free some space");
        assert_eq!(
            error.to_string(),
            "service.web: cannot write `a.img`: No space left on device (os error 28)"
        );
        assert_eq!(error.advice(), Some("free some space"));
        let again = error.within("entry `x`").within("service.web").to_string();
        assert!(again.starts_with("service.web: entry `x`: cannot write `a.img`"), "{again}");
    }
}
