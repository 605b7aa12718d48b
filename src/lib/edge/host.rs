//! The machine that this runs on.

use anyhow::{Context as _, Result};

/// Its name, as `hostname` prints it.
pub fn name() -> Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").context("cannot tell this machine's name")?;
    Ok(text.trim().to_owned())
}

/// Its identity, as it was given when it was set up; `None` where it has none, as a container may.
pub fn machine() -> Option<String> {
    let mut texts = ["/etc/machine-id", "/var/lib/dbus/machine-id"].into_iter().filter_map(line);
    texts.find(|text| !text.is_empty() && text != "uninitialized")
}

/// Which of its boots this is; empty where that cannot be told.
pub fn boot() -> String {
    line("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn line(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
