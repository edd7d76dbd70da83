//! The lock file: what a config's names stood for when it was last built, so that it builds the same again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::ids::{self, Ranges};
use crate::oci::descriptor::Digest;
use crate::store::Draft;

/// The version of the file's shape.
const VERSION: u32 = 1;

/// The largest lock file that is read. One image takes about 150 bytes.
const LIMIT: u64 = 4 << 20;

const HEADER: &str = "\
# What the names in the config beside this file stood for when it was last built.
# `coracle build` writes it; commit it, do not edit it.
";

/// Every input of a build that is named rather than given, pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    /// By reference, as the config writes it: the digest that names all of the image's content. In a layout that
    /// is the manifest's, in a `docker-archive` the configuration's, of a `dir` the diff id of its one layer.
    pub images: BTreeMap<String, Digest>,
    /// The kernel package; none when the kernel comes from files.
    pub kernel: Option<Kernel>,
    /// The user and group ids of each service that there ever was. They are not read from the inputs, and so only
    /// those that are missing make a lock stale.
    pub ids: Ranges,
}

/// A kernel package of a Debian archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// The package that the config names: `linux-image-cloud-amd64`.
    pub package: String,
    /// The package that holds the kernel: `linux-image-6.1.0-56-cloud-amd64`.
    pub resolved: String,
    /// Its version: `6.1.192-2`.
    pub version: String,
    /// The SHA-256 of its `.deb`, 64 hexadecimal digits.
    pub sha256: String,
}

/// The file, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: u32,
    kernel: Option<Kernel>,
    #[serde(default)]
    ids: Ranges,
    #[serde(default)]
    image: BTreeMap<String, RawImage>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawImage {
    digest: Digest,
}

/// Just the version, whatever stands around it: a newer file is told from a broken one.
#[derive(Deserialize)]
struct RawVersion {
    version: u32,
}

impl Lock {
    /// Reads a lock file, if there is one.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        Ok(match text(path)? {
            Some(text) => Some(parse(&text).map_err(|e| e.within(format_args!("`{}`", path.display())))?),
            None => None,
        })
    }

    /// Writes the lock file, all at once, unless it already says the same.
    pub fn write(&self, path: &Path) -> Result<()> {
        let new = self.text()?;
        if text(path)?.is_some_and(|old| old == new) {
            return Ok(());
        }
        let mut draft = Draft::begin(path)?;
        draft.write_all(new.as_bytes()).doing(|| format!("write `{}`", path.display()))?;
        draft.commit()
    }

    /// What differs between this lock and the inputs as they are `now`: a sentence each, in order.
    pub fn diff(&self, now: &Self) -> Vec<String> {
        let mut sentences = Vec::new();
        for (reference, digest) in &now.images {
            match self.images.get(reference) {
                Some(locked) if locked == digest => {}
                Some(locked) => {
                    sentences.push(format!("image `{reference}` was `{locked}` and is `{digest}`"))
                }
                None => sentences.push(format!("image `{reference}` is not in the lock")),
            }
        }
        for reference in self.images.keys().filter(|reference| !now.images.contains_key(*reference)) {
            sentences.push(format!("image `{reference}` is no longer used"));
        }
        match (&self.kernel, &now.kernel) {
            (Some(locked), Some(kernel)) => sentences.extend(locked.diff(kernel)),
            (Some(locked), None) => {
                sentences.push(format!("kernel package `{}` is no longer used", locked.package));
            }
            (None, Some(kernel)) => {
                sentences.push(format!("kernel package `{}` is not in the lock", kernel.package));
            }
            (None, None) => {}
        }
        for (name, first) in &now.ids {
            match self.ids.get(name) {
                Some(locked) if locked == first => {}
                Some(locked) => sentences.push(format!(
                    "the user ids of `{}` began at {locked} and begin at {first}",
                    name.as_str()
                )),
                None => sentences.push(format!("`{}` has no user ids in the lock", name.as_str())),
            }
        }
        sentences
    }

    fn text(&self) -> Result<String> {
        let image = self.images.iter().map(|(name, &digest)| (name.clone(), RawImage { digest })).collect();
        let raw = Raw { version: VERSION, kernel: self.kernel.clone(), ids: self.ids.clone(), image };
        Ok(format!("{HEADER}\n{}", toml::to_string(&raw).doing(|| "write the lock as TOML")?))
    }
}

impl Kernel {
    fn diff(&self, now: &Self) -> Option<String> {
        if self == now {
            return None;
        }
        let package = &now.package;
        Some(if self.package != now.package {
            format!("kernel package `{}` was replaced by `{package}`", self.package)
        } else if (&self.resolved, &self.version) != (&now.resolved, &now.version) {
            let (resolved, version) = (&self.resolved, &self.version);
            format!(
                "kernel package `{package}` was `{resolved}` version {version} and is `{}` version {}",
                now.resolved, now.version
            )
        } else {
            format!("kernel package `{}` has the same version and other content", now.resolved)
        })
    }
}

fn text(path: &Path) -> Result<Option<String>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing(|| format!("open `{}`", path.display())),
    };
    let mut text = String::new();
    file.take(LIMIT + 1).read_to_string(&mut text).doing(|| format!("read `{}`", path.display()))?;
    if text.len() as u64 > LIMIT {
        return Err(Error::new(format!("`{}` is no lock file: it has over {LIMIT} bytes", path.display())));
    }
    Ok(Some(text))
}

fn parse(text: &str) -> Result<Lock> {
    let at_line = |error: toml::de::Error| {
        let line =
            error.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|&b| b == b'\n').count());
        Error::new(format!("line {line}: {}", error.message().trim().replace('\n', ", ")))
            .hint("remove the file to lock anew")
    };
    let RawVersion { version } = toml::from_str(text).map_err(at_line)?;
    if version != VERSION {
        return Err(Error::new(format!("it has version {version}, this `coracle` reads version {VERSION}"))
            .hint("use the `coracle` that wrote it, or remove the file to lock anew"));
    }
    let raw: Raw = toml::from_str(text).map_err(at_line)?;
    if let Some(mistake) = ids::find_mistake(&raw.ids) {
        return Err(Error::new(mistake).hint("correct them under [ids], or remove them to have others"));
    }
    let images = raw.image.into_iter().map(|(reference, image)| (reference, image.digest)).collect();
    Ok(Lock { images, kernel: raw.kernel, ids: raw.ids })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> manifest::Name {
        text.to_owned().try_into().unwrap()
    }

    fn sample() -> Lock {
        Lock {
            images: [("oci:images/demo:web", "web"), ("dir:root", "root")]
                .map(|(reference, bytes)| (reference.to_owned(), Digest::of(bytes.as_bytes())))
                .into(),
            kernel: Some(Kernel {
                package: "linux-image-cloud-amd64".into(),
                resolved: "linux-image-6.1.0-56-cloud-amd64".into(),
                version: "6.1.192-2".into(),
                sha256: Digest::of(b"deb").hex(),
            }),
            ids: [(name("web"), 1 << 20)].into(),
        }
    }

    #[test]
    fn a_lock_is_sorted_toml_and_reads_back_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demo.lock");
        assert_eq!(Lock::read(&path).unwrap(), None);
        sample().write(&path).unwrap();
        let (web, root, deb) = (Digest::of(b"web"), Digest::of(b"root"), Digest::of(b"deb").hex());
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!(
                "{HEADER}\nversion = 1\n\n[kernel]\npackage = \"linux-image-cloud-amd64\"\n\
                 resolved = \"linux-image-6.1.0-56-cloud-amd64\"\nversion = \"6.1.192-2\"\nsha256 = \"{deb}\"\n\n\
                 [ids]\nweb = 1048576\n\n\
                 [image.\"dir:root\"]\ndigest = \"{root}\"\n\n[image.\"oci:images/demo:web\"]\ndigest = \"{web}\"\n"
            )
        );
        assert_eq!(Lock::read(&path).unwrap(), Some(sample()));
        Lock::default().write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap(), Some(Lock::default()));
    }

    #[test]
    fn a_lock_that_says_the_same_is_not_touched() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demo.lock");
        sample().write(&path).unwrap();
        let before = fs::metadata(&path).unwrap().ino();
        sample().write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), before);
    }

    #[test]
    fn what_is_no_lock_is_refused_with_its_line() {
        for (text, why) in [
            ("", "line 1: missing field `version`"),
            ("version = 2\nfuture = true\n", "it has version 2, this `coracle` reads version 1"),
            ("version = 1\nfuture = true\n", "line 2: unknown field `future`"),
            (
                "version = 1\n[image.\"oci:x\"]\ndigest = \"sha256:abc\"\n",
                "line 3: `sha256:abc` is no digest",
            ),
            ("version = 1\n[ids]\nWeb = 1048576\n", "a name consists of"),
            ("version = 1\n[ids]\nweb = 1000\n", "the ids of `web` begin at 1000, which is no multiple"),
            ("version = 1\n[ids]\na = 1048576\nb = 1048576\n", "`a` and `b` have the same ids"),
            ("version = 1\n[kernel]\npackage = \"x\"\n", "missing field `resolved`"),
            ("version = ", "line 1: "),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_stale_lock_is_explained_sentence_by_sentence() {
        let (old, mut new) = (sample(), sample());
        assert_eq!(old.diff(&new), Vec::<String>::new());
        new.images.remove("dir:root");
        new.images.insert("oci:images/demo:web".into(), Digest::of(b"web2"));
        new.images.insert("oci:images/demo:db".into(), Digest::of(b"db"));
        let mut kernel = new.kernel.take().unwrap();
        assert!(
            old.diff(&new).contains(&"kernel package `linux-image-cloud-amd64` is no longer used".into())
        );
        kernel.version = "6.1.193-1".into();
        new.kernel = Some(kernel);
        new.ids = [(name("web"), 1 << 21), (name("new"), 1 << 22)].into();
        let (web, web2) = (Digest::of(b"web"), Digest::of(b"web2"));
        assert_eq!(
            old.diff(&new),
            [
                "image `oci:images/demo:db` is not in the lock".to_owned(),
                format!("image `oci:images/demo:web` was `{web}` and is `{web2}`"),
                "image `dir:root` is no longer used".to_owned(),
                "kernel package `linux-image-cloud-amd64` was `linux-image-6.1.0-56-cloud-amd64` version 6.1.192-2 \
                 and is `linux-image-6.1.0-56-cloud-amd64` version 6.1.193-1"
                    .to_owned(),
                "`new` has no user ids in the lock".to_owned(),
                "the user ids of `web` began at 1048576 and begin at 2097152".to_owned(),
            ]
        );
    }

    #[test]
    fn the_ids_of_a_removed_service_stay_and_make_no_lock_stale() {
        let mut without = sample();
        without.ids.clear();
        assert_eq!(sample().diff(&without), Vec::<String>::new());
        assert_eq!(parse("version = 1\n").unwrap(), Lock::default(), "a lock of before there were ids");
    }
}
