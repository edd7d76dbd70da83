//! init's one error: what was being done, to what, and why it failed. It reads as a sentence after `cannot`.

use std::borrow::Cow;
use std::fmt;

use nix::errno::Errno;

/// `cannot mount /proc: Device or resource busy`, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    doing: &'static str,
    object: Cow<'static, str>,
    cause: Cause,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Cause {
    System(Errno),
    Said(String),
}

/// What init does.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For what the kernel refused. `doing` is a verb's infinitive, `object` what stands in backticks after
    /// it.
    pub fn new(doing: &'static str, object: impl Into<Cow<'static, str>>, errno: impl Into<Errno>) -> Self {
        Self { doing, object: object.into(), cause: Cause::System(errno.into()) }
    }

    /// For what init itself refuses, with the reason as a clause.
    pub fn said(doing: &'static str, object: impl Into<Cow<'static, str>>, why: impl Into<String>) -> Self {
        Self { doing, object: object.into(), cause: Cause::Said(why.into()) }
    }

    /// For what the standard library failed to do.
    pub fn io(doing: &'static str, object: impl Into<Cow<'static, str>>, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::new(doing, object, Errno::from_raw(number)),
            None => Self::said(doing, object, error.to_string()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} `{}`: ", self.doing, self.object)?;
        match &self.cause {
            Cause::System(errno) => f.write_str(errno.desc()),
            Cause::Said(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

/// The kernel's word for what rustix failed to do.
pub fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_sentence_with_its_object_and_its_cause() {
        let error = Error::new("mount", "/proc", Errno::EBUSY);
        assert_eq!(error.to_string(), "cannot mount `/proc`: Device or resource busy");
        let error = Error::io("read", "/x", &std::io::Error::from_raw_os_error(2));
        assert_eq!(error.to_string(), "cannot read `/x`: No such file or directory");
        let error = Error::said("use", "/coracle/manifest.json", "its version is 2, this init's is 1");
        assert_eq!(
            error.to_string(),
            "cannot use `/coracle/manifest.json`: its version is 2, this init's is 1"
        );
    }
}
