//! What the demo and test images consist of, as data. Servers are Debian's own; what is set here is what the
//! images of the same name on public registries set.

/// The modification time of everything that a recipe makes.
pub const EPOCH: u64 = 1_700_000_000;

/// What no server needs. LLVM (120 MB) is only PostgreSQL's just-in-time compiler, which is optional at run time.
pub const EXCLUDED_PATHS: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/i18n/*",
    "/usr/share/lintian/*",
    "/usr/share/zoneinfo/*/*",
    "/usr/lib/*/gconv/*",
    "/usr/lib/*/libLLVM*",
    "/usr/lib/*/libz3.so*",
    "/usr/lib/llvm-*",
    "/usr/lib/postgresql/*/lib/llvmjit*",
    "/usr/lib/postgresql/*/lib/bitcode/*",
];

/// One image: a layer on top of the base, and the configuration that says how it runs.
pub struct Recipe {
    /// The image's tag in the layout.
    pub tag: &'static str,
    /// Debian packages, installed without their recommendations.
    pub packages: &'static str,
    /// Shell lines run in the image's root after the installation.
    pub setup: &'static str,
    /// Options of `umoci config`, each with its value.
    pub config: &'static [(&'static str, &'static str)],
}

/// The `PATH` that every public image sets.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The images that share the base's layer.
pub const SERVERS: &[Recipe] = &[
    Recipe {
        tag: "nginx",
        packages: "nginx-light",
        setup: "ln -sf /dev/stdout /var/log/nginx/access.log; ln -sf /dev/stderr /var/log/nginx/error.log",
        config: &[
            ("--config.cmd", "nginx"),
            ("--config.cmd", "-g"),
            ("--config.cmd", "daemon off;"),
            ("--config.exposedports", "80/tcp"),
            ("--config.stopsignal", "SIGQUIT"),
        ],
    },
    Recipe {
        tag: "redis",
        packages: "redis-server",
        setup: "",
        config: &[
            ("--config.entrypoint", "redis-server"),
            ("--config.cmd", "--bind"),
            ("--config.cmd", "0.0.0.0"),
            ("--config.cmd", "--protected-mode"),
            ("--config.cmd", "no"),
            ("--config.exposedports", "6379/tcp"),
            ("--config.user", "redis"),
            ("--config.volume", "/var/lib/redis"),
            ("--config.workingdir", "/var/lib/redis"),
        ],
    },
    Recipe {
        tag: "node",
        packages: "nodejs",
        setup: "useradd --uid 1000 --user-group --create-home --shell /bin/bash node",
        config: &[("--config.cmd", "node"), ("--config.env", "NODE_ENV=production")],
    },
    Recipe {
        tag: "postgresql",
        packages: "postgresql",
        setup: "for folder in /etc/postgresql/*/main; do
                    echo 'host all all all trust' >>$folder/pg_hba.conf
                    echo \"listen_addresses = '*'\" >>$folder/postgresql.conf
                    ln -s $folder /etc/postgresql/main
                done
                ln -s /usr/lib/postgresql/*/bin/postgres /usr/local/bin/postgres
                install -d -o postgres -g postgres -m 2775 /run/postgresql",
        config: &[
            ("--config.entrypoint", "postgres"),
            ("--config.cmd", "-c"),
            ("--config.cmd", "config_file=/etc/postgresql/main/postgresql.conf"),
            ("--config.exposedports", "5432/tcp"),
            ("--config.stopsignal", "SIGINT"),
            ("--config.user", "postgres"),
        ],
    },
    // With what crun's own tests are written in.
    Recipe { tag: "runtimes", packages: "crun runc python3", setup: "", config: &[("--config.cmd", "bash")] },
];

/// The tag of the small image, which shares nothing with the others.
pub const BUSYBOX: &str = "busybox";

/// Makes the small image's one layer: Debian's static busybox, a link for each of its applets, and two users.
pub const BUSYBOX_SCRIPT: &str = r#"
set -eu
work=$1/tmp/busybox
mkdir -p "$work/deb" "$work/root/bin" "$work/root/etc" "$work/root/tmp" "$work/root/root" "$work/root/home/user"
(cd "$1" && chroot . sh -c 'cd /tmp/busybox/deb && apt-get --option APT::Sandbox::User=root --quiet=2 download busybox-static')
# In /bin on Debian 12 and in /usr/bin on Debian 13.
dpkg-deb --fsys-tarfile "$work"/deb/*.deb |
    tar --extract --directory="$work/root/bin" --wildcards --transform='s,.*/,,' '*/bin/busybox'
for applet in $("$work/root/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$work/root/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n' >"$work/root/etc/passwd"
printf 'root:x:0:\nuser:x:1000:\naudio:x:29:user\nvideo:x:44:user,root\n' >"$work/root/etc/group"
chmod 1777 "$work/root/tmp"
chown 1000:1000 "$work/root/home/user"
tar --create --file="$1/tmp/busybox.tar" --directory="$work/root" --sort=name --numeric-owner \
    --mtime="@$SOURCE_DATE_EPOCH" --format=pax --pax-option=delete=atime,delete=ctime .
rm -rf "$work"
"#;
