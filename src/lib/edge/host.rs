//! The machine that this runs on.

use anyhow::{Context as _, Result};

/// Its name, as `hostname` prints it.
pub fn name() -> Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").context("cannot tell this machine's name")?;
    Ok(text.trim().to_owned())
}
