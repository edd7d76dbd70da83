//! Image references, in the spelling of containers-transports(5).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::Error;

/// Where an image comes from, as the config says it. Relative paths are relative to the config's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    written: String,
    transport: Transport,
}

/// The meaning of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// `oci:DIR[:TAG]`: a folder in the OCI image layout.
    Layout(PathBuf, Selector),
    /// `oci-archive:FILE[:TAG]`: the same inside a tar archive.
    LayoutArchive(PathBuf, Selector),
    /// `docker-archive:FILE[:NAME:TAG]`: what `docker save` writes.
    DockerArchive(PathBuf, Selector),
    /// `dir:PATH`: a folder that is the one layer of an image without a configuration.
    Folder(PathBuf),
    /// `docker://NAME` or a bare `NAME`: an image in a registry.
    Registry(String),
}

/// Which image of a place that holds several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The only one.
    Only,
    /// The one that is called so.
    Name(String),
    /// `@INDEX`: the one at this position, counted from 0.
    Position(usize),
}

/// Makes a transport of its two parts.
type Local = fn(PathBuf, Selector) -> Transport;

/// The transports that name one image of a file or a folder on this machine.
const LOCAL: [(&str, Local); 3] = [
    ("oci", Transport::Layout),
    ("oci-archive", Transport::LayoutArchive),
    ("docker-archive", Transport::DockerArchive),
];

/// Transports of containers-transports(5) that need an engine, or a format, that Coracle does without.
const FOREIGN: [&str; 6] = ["atomic", "containers-storage", "docker-daemon", "ostree", "sif", "tarball"];

impl Reference {
    /// What the reference means.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The file or folder that it names, if it is one of this machine; `base` is the folder of the config.
    pub fn path(&self, base: &Path) -> Option<PathBuf> {
        match &self.transport {
            Transport::Layout(path, _)
            | Transport::LayoutArchive(path, _)
            | Transport::DockerArchive(path, _)
            | Transport::Folder(path) => Some(base.join(path)),
            Transport::Registry(_) => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let transport = parse(text)
            .map_err(|error| error.within(format_args!("image reference `{}`", text.escape_debug())))?;
        Ok(Self { written: text.to_owned(), transport })
    }
}

fn parse(text: &str) -> Result<Transport, Error> {
    if text.is_empty() {
        return Err(Error::new("it is empty"));
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Err(Error::new(format!("it contains the control character {c:?}")));
    }
    if text.starts_with(['/', '.', '~']) {
        return Err(Error::new("it is a path without a transport")
            .hint("write `oci:DIR:TAG`, `oci-archive:FILE`, `docker-archive:FILE` or `dir:PATH`"));
    }
    let Some((transport, rest)) = text.split_once(':') else { return registry(text) };
    if let Some((_, local)) = LOCAL.iter().find(|(name, _)| *name == transport) {
        let (path, selector) = match rest.split_once(':') {
            Some((path, selector)) => (path, self::selector(selector)?),
            None => (rest, Selector::Only),
        };
        return Ok(local(non_empty(path)?, selector));
    }
    match transport {
        "dir" => Ok(Transport::Folder(non_empty(rest)?)),
        "docker" => match rest.strip_prefix("//") {
            Some(name) => registry(name),
            None => Err(Error::new("`//` is missing after `docker:`")),
        },
        _ if FOREIGN.contains(&transport) => {
            Err(Error::new(format!("the transport `{transport}` is not supported"))
                .hint(format!("copy the image: `skopeo copy {text} oci:DIR:TAG`")))
        }
        _ => registry(text),
    }
}

fn non_empty(path: &str) -> Result<PathBuf, Error> {
    if path.is_empty() { Err(Error::new("the path is missing")) } else { Ok(path.into()) }
}

fn selector(text: &str) -> Result<Selector, Error> {
    match text.strip_prefix('@') {
        _ if text.is_empty() => Err(Error::new("the tag after the last `:` is missing")),
        Some(position) => match position.parse() {
            Ok(position) => Ok(Selector::Position(position)),
            Err(_) => Err(Error::new(format!("`@{position}` is no position: expected `@` and a number"))),
        },
        None => Ok(Selector::Name(text.to_owned())),
    }
}

/// `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`. A word before a `:` that is neither a host nor an image is a transport
/// that was meant, and a registry would only ever answer that it knows no such image.
fn registry(name: &str) -> Result<Transport, Error> {
    let path = name.split_once('@').map_or(name, |(path, _)| path);
    if let Some((first, rest)) = path.split_once(':')
        && !first.contains('/')
        && let Some((port, _)) = rest.split_once('/')
        && !port.bytes().all(|digit| digit.is_ascii_digit())
    {
        return Err(Error::new(format!("there is no transport `{first}`"))
            .hint("the transports are `oci`, `oci-archive`, `docker-archive`, `dir` and `docker`"));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
    if let Some(c) = name.chars().find(|&c| !legal(c)) {
        return Err(Error::new(format!("an image's name cannot contain {c:?}")));
    }
    if path.is_empty() || path.starts_with(['/', ':']) || path.ends_with(['/', ':']) || path.contains("//") {
        return Err(Error::new("a part of the image's name is missing"));
    }
    Ok(Transport::Registry(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_means_what_containers_transports_says_and_prints_as_it_was_written() {
        let name = |name: &str| Selector::Name(name.to_owned());
        for (text, transport) in [
            ("oci:images/demo:web", Transport::Layout("images/demo".into(), name("web"))),
            ("oci:images/demo", Transport::Layout("images/demo".into(), Selector::Only)),
            ("oci:d:r:1", Transport::Layout("d".into(), name("r:1"))),
            ("oci-archive:a.tar:x", Transport::LayoutArchive("a.tar".into(), name("x"))),
            ("docker-archive:/a.tar:redis:7", Transport::DockerArchive("/a.tar".into(), name("redis:7"))),
            ("docker-archive:a.tar:@1", Transport::DockerArchive("a.tar".into(), Selector::Position(1))),
            ("dir:a:b", Transport::Folder("a:b".into())),
            ("docker://redis:7", Transport::Registry("redis:7".into())),
            ("redis", Transport::Registry("redis".into())),
            ("redis:7", Transport::Registry("redis:7".into())),
            ("localhost:5000/a/b:c", Transport::Registry("localhost:5000/a/b:c".into())),
            ("docker.io/library/redis:7", Transport::Registry("docker.io/library/redis:7".into())),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.transport(), &transport, "{text}");
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn a_reference_that_means_nothing_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "it is empty"),
            ("oci:", "the path is missing"),
            ("oci:x:", "the tag after the last `:` is missing"),
            ("docker-archive:x:@y", "`@y` is no position"),
            ("dir:", "the path is missing"),
            ("docker:redis", "`//` is missing"),
            ("docker://", "a part of the image's name is missing"),
            ("docker-daemon:redis:7", "`docker-daemon` is not supported"),
            ("oic:images/demo:web", "there is no transport `oic`"),
            ("./images", "it is a path without a transport"),
            ("a b", "cannot contain ' '"),
            ("oci:x\n", "control character '\\n'"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_relative_path_is_relative_to_the_folder_of_the_config() {
        let path = |text: &str| text.parse::<Reference>().unwrap().path(Path::new("/etc/machines"));
        assert_eq!(path("oci:images/demo:web"), Some("/etc/machines/images/demo".into()));
        assert_eq!(path("dir:/srv/root"), Some("/srv/root".into()));
        assert_eq!(path("redis"), None);
    }
}
