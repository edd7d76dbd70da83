//! The image configuration (OCI image specification, `config.md`): what a container of an image is, by default.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::descriptor::{Digest, null_is_default};

/// The document that a manifest's `config` descriptor names. Fields that no container needs are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ImageConfig {
    /// `amd64`, `arm64`, …; empty in some hand-made images.
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// Defaults for a container's process. `null` and absent are the same.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: Process,
    /// The layers, by the digests of their uncompressed tar archives.
    #[serde(default)]
    pub rootfs: RootFs,
}

/// Defaults for a container's process, in the specification's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Process {
    /// `user`, `uid`, `user:group`, `uid:gid`, `uid:group` or `user:gid`; empty means 0.
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    /// `NAME=value` each.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// The program, to which the command's words are arguments.
    #[serde(deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// Arguments of the entrypoint, or the program and its arguments where there is none.
    #[serde(deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// Absolute; empty means `/`.
    #[serde(deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// A signal's name or number; empty means SIGTERM.
    #[serde(deserialize_with = "null_is_default")]
    pub stop_signal: String,
    /// Paths that hold data; the values are empty objects.
    #[serde(deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// `port`, `port/tcp` or `port/udp`; the values are empty objects.
    #[serde(deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Docker's `HEALTHCHECK`, which the OCI specification leaves out and most tools keep.
    pub healthcheck: Option<Healthcheck>,
}

/// How Docker finds out whether a container is healthy. Times are in nanoseconds, 0 for the usual.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// Empty, or a list that begins with `NONE`, `CMD` or `CMD-SHELL`.
    #[serde(deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// Between two checks.
    pub interval: i64,
    /// For one check.
    pub timeout: i64,
    /// After the start, in which failures do not count.
    pub start_period: i64,
    /// The interval within that time.
    pub start_interval: i64,
    /// Failures in a row.
    pub retries: i64,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct RootFs {
    /// The lowest layer first.
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_absent_and_unknown_fields_are_all_fine() {
        let text = r#"{"architecture":"amd64","os":"linux","created":"now","config":{"Entrypoint":null,
            "Cmd":["nginx"],"Volumes":{"/data":{}}},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#;
        let image: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(image.config.entrypoint, Vec::<String>::new());
        assert_eq!(image.config.cmd, ["nginx"]);
        assert!(image.config.volumes.contains_key("/data"));
        assert!(serde_json::from_str::<ImageConfig>(r#"{"config":null}"#).is_ok());
    }
}
