//! A node's output: appended to across restarts, bounded at each start.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// A log larger than this is put aside as `log.1` when its node is started, in place of the `log.1` before it. A node
/// that is never restarted can outgrow it.
const ROTATE_ABOVE_BYTES: u64 = 16 << 20;
/// How far back [`tail`] looks, however long the lines are.
const TAIL_BYTES: u64 = 1 << 20;

/// Opens the log for appending, after putting a large one aside.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() > ROTATE_ABOVE_BYTES) {
        fs::rename(path, path.with_extension("1"))?;
    }
    File::options().create(true).append(true).open(path)
}

/// The last `lines` lines, fewer if they are over 1 MiB together; none if there is no log. What is not UTF-8 is
/// replaced.
pub(crate) fn tail(path: &Path, lines: usize) -> io::Result<Vec<String>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let from = file.metadata()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(from))?;
    last_lines(BufReader::new(file.take(TAIL_BYTES)), lines, from > 0)
}

fn last_lines(reader: impl BufRead, lines: usize, starts_midway: bool) -> io::Result<Vec<String>> {
    let mut kept = VecDeque::new();
    for line in reader.split(b'\n').skip(usize::from(starts_midway)) {
        kept.push_back(String::from_utf8_lossy(&line?).into_owned());
        if kept.len() > lines {
            kept.pop_front();
        }
    }
    Ok(kept.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_log_is_put_aside_and_a_small_one_continued() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "small\n").unwrap();
        open(&path).unwrap();
        assert_eq!(tail(&path, 5).unwrap(), ["small"]);
        File::options().write(true).open(&path).unwrap().set_len(ROTATE_ABOVE_BYTES + 1).unwrap();
        open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        assert_eq!(fs::metadata(dir.path().join("log.1")).unwrap().len(), ROTATE_ABOVE_BYTES + 1);
    }

    #[test]
    fn the_tail_is_whole_lines_and_never_more_than_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(tail(&path, 3).unwrap().is_empty());
        fs::write(&path, "a\nb\nc").unwrap();
        assert_eq!(tail(&path, 2).unwrap(), ["b", "c"]);
        let long = "x".repeat(usize::try_from(TAIL_BYTES).unwrap());
        fs::write(&path, format!("{long}\nlast\n")).unwrap();
        assert_eq!(tail(&path, 2).unwrap(), ["last"]);
    }
}
