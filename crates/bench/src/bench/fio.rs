//! The yardstick: `fio` over one file, through io_uring with registered file and buffers.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Why there is no yardstick.
#[derive(Debug, thiserror::Error)]
pub(super) enum FioError {
    #[error("cannot run fio (Debian: apt-get install fio)")]
    Start(#[source] io::Error),
    #[error("fio over {file} ended with {status}:\n{said}")]
    Failed { file: PathBuf, status: ExitStatus, said: String },
    #[error("fio's report is not understood: no {missing}")]
    Report { missing: &'static str },
}

/// Sequential work of fio.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    Read,
    /// What the last flush of the device takes is not counted.
    Write,
    /// Each write is durable when it returns (`O_DSYNC`).
    WriteDurably,
}

impl Work {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write | Self::WriteDurably => "write",
        }
    }
}

/// Bytes per second that fio reads or writes, one after the other, `depth` blocks at a time.
pub(super) fn run(
    work: Work,
    file: &Path,
    bytes: u64,
    block_bytes: u32,
    depth: u32,
) -> Result<f64, FioError> {
    let output = Command::new("fio")
        .args(["--name=yardstick", "--ioengine=io_uring", "--direct=1", "--thread"])
        .args(["--registerfiles=1", "--fixedbufs=1", "--end_fsync=1", "--allow_file_create=0"])
        .args(["--overwrite=1", "--output-format=json", &format!("--rw={}", work.name())])
        .args([format!("--bs={block_bytes}"), format!("--iodepth={depth}")])
        .arg(format!(
            "--sync={}",
            if matches!(work, Work::WriteDurably) { "dsync" } else { "none" }
        ))
        .arg(format!("--size={}", bytes / u64::from(block_bytes) * u64::from(block_bytes)))
        .arg(format!("--filename={}", file.display()))
        .output()
        .map_err(FioError::Start)?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
        return Err(FioError::Failed { file: file.to_owned(), status: output.status, said });
    }
    speed(&said, work)
}

/// Bytes per second in fio's report; warnings may stand before it.
fn speed(said: &str, work: Work) -> Result<f64, FioError> {
    let json = said.find('{').map(|start| &said[start..]).unwrap_or_default();
    let report: Result<serde_json::Value, _> = serde_json::from_str(json);
    let report = report.map_err(|_| FioError::Report { missing: "JSON" })?;
    let speed = report["jobs"][0][work.name()]["bw_bytes"].as_f64();
    speed.filter(|speed| *speed > 0.0).ok_or(FioError::Report { missing: "bw_bytes" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        let report =
            "note: x\n{\"jobs\": [{\"read\": {\"bw_bytes\": 0}, \"write\": {\"bw_bytes\": 12}}]}";
        assert_eq!(speed(report, Work::Write).unwrap(), 12.0);
        let error = |said: &str| speed(said, Work::Read).unwrap_err().to_string();
        assert_eq!(error(report), "fio's report is not understood: no bw_bytes");
        assert_eq!(error("nothing"), "fio's report is not understood: no JSON");
    }
}
