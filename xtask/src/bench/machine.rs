//! Machines that the benchmark builds to boot them.

use std::path::{Path, PathBuf};

use super::Bench;
use crate::process::{Result, because, run_quietly};
use crate::workspace::{make_folder, read_file, write_file};

/// Where a machine's kernel comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// The cloud kernel of the host's own suite: 6.1 on Debian 12.
    Own,
    /// Debian 13's: 6.12.
    Second,
}

/// A machine in a folder.
#[derive(Debug, Clone)]
pub struct Machine {
    name: String,
    /// What `coracle build` wrote.
    pub output: PathBuf,
}

impl Machine {
    /// Builds the machine of a config's text. Its name names its folder as well, with the lock in it.
    pub fn build(
        bench: &Bench,
        name: &str,
        kernel: Kernel,
        services: &str,
        init: Option<&Path>,
    ) -> Result<Self> {
        let config = Self::config(bench, name, services)?;
        let mut command = bench.coracle();
        if kernel == Kernel::Second {
            command.env("APT_CONFIG", bench.workspace.target("apt/apt.conf"));
        }
        let output = bench.folder(name)?.join("out");
        command.arg("build").arg(config).arg("-o").arg(&output);
        if let Some(init) = init {
            command.arg("--init").arg(init);
        }
        run_quietly(&mut command)?;
        Ok(Self { name: name.to_owned(), output })
    }

    /// Writes the config of a machine into the folder of its name.
    pub fn config(bench: &Bench, name: &str, services: &str) -> Result<PathBuf> {
        let config = bench.folder(name)?.join(format!("{name}.toml"));
        write_file(&config, &format!("name = \"{name}\"\n\n{services}")).map(|()| config)
    }

    /// The machine of `configs/demo.toml`.
    pub fn demo(bench: &Bench) -> Result<Self> {
        let output = bench.folder("demo")?;
        run_quietly(bench.coracle().args(["build", "configs/demo.toml", "-o"]).arg(&output))?;
        Ok(Self { name: "demo".to_owned(), output })
    }

    /// One that was built before in this run.
    pub fn built(bench: &Bench, name: &str) -> Result<Self> {
        Ok(Self { name: name.to_owned(), output: bench.folder(name)?.join("out") })
    }

    /// The kernel's file.
    pub fn kernel(&self) -> PathBuf {
        self.file("kernel")
    }

    /// The initramfs' file.
    pub fn initramfs(&self) -> PathBuf {
        self.file("initramfs.img")
    }

    /// The kernel's command line.
    pub fn cmdline(&self) -> Result<String> {
        read_file(&self.file("cmdline")).map(|text| text.trim_end().to_owned())
    }

    /// The version of the kernel, which stands in its file where the boot protocol's header says.
    pub fn release(&self) -> Result<String> {
        let path = self.kernel();
        let bytes = std::fs::read(&path).map_err(because(format!("cannot read `{}`", path.display())))?;
        release(&bytes).ok_or_else(|| format!("`{}` has no version", path.display()))
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.output.join(format!("{}-{ending}", self.name))
    }
}

/// `kernel_version` of Documentation/arch/x86/boot.rst: where a text stands, less 0x200.
fn release(kernel: &[u8]) -> Option<String> {
    let place = kernel.get(0x20e..0x210)?;
    let text = kernel.get(usize::from(u16::from_le_bytes([place[0], place[1]])) + 0x200..)?;
    let word = text.split(|byte| byte.is_ascii_whitespace() || *byte == 0).next()?;
    String::from_utf8(word.to_vec()).ok().filter(|word| !word.is_empty())
}

/// Fails when two machines that are compared differ in more than their first process.
pub fn require_parity(ours: &Machine, floor: &Machine) -> Result<()> {
    let read =
        |path: PathBuf| std::fs::read(&path).map_err(because(format!("cannot read `{}`", path.display())));
    if read(ours.kernel())? != read(floor.kernel())? {
        return Err(format!("`{}` and `{}` have different kernels", ours.name, floor.name));
    }
    if ours.cmdline()? != floor.cmdline()? {
        return Err(format!("`{}` and `{}` have different command lines", ours.name, floor.name));
    }
    Ok(())
}

/// A folder with one file in it, as an image.
pub fn image_of(bench: &Bench, name: &str, file: &Path) -> Result<String> {
    let folder = bench.folder("images")?.join(name);
    make_folder(&folder)?;
    let target = folder.join(name);
    std::fs::copy(file, &target).map_err(because(format!("cannot copy `{}`", file.display())))?;
    Ok(format!("dir:{}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_version_is_where_its_header_says() {
        let mut kernel = vec![0; 0x400];
        kernel[0x20e] = 0x80;
        kernel[0x280..0x28c].copy_from_slice(b"6.1.0-1 (x) ");
        assert_eq!(release(&kernel), Some("6.1.0-1".to_owned()));
        kernel[0x280] = 0;
        assert_eq!(release(&kernel), None);
        assert_eq!(release(b"MZ"), None);
    }
}
