//! Where lines go: standard output, a file that is rotated, or a part of this process.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

/// A file of records.
#[derive(Clone, Debug)]
pub struct FileSettings {
    /// Where it is.
    pub path: PathBuf,
    /// Size at which it becomes `path.1`, and `path.1` becomes `path.2`.
    pub rotate_bytes: u64,
    /// How many old files are kept; the oldest is removed.
    pub keep: u32,
}

/// Takes whole lines, as many as one write holds. It runs on the writer's own thread and may block it.
pub type Callback = Box<dyn FnMut(&str) -> io::Result<()> + Send>;

/// Where lines go. The durable journal will be one more.
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, readable by its owner only.
    File(FileSettings),
    /// One message a line, without its line feed. A full channel is waited for.
    Channel(Sender<String>),
    /// Whole lines, to a part of this process.
    Callback(Callback),
}

impl fmt::Debug for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => formatter.write_str("Stdout"),
            Self::File(settings) => settings.fmt(formatter),
            Self::Channel(_) => formatter.write_str("Channel"),
            Self::Callback(_) => formatter.write_str("Callback"),
        }
    }
}

/// An open destination.
pub(super) enum Sink {
    Stream(File),
    File(RotatedFile),
    Channel(Sender<String>),
    Callback(Callback),
}

impl Sink {
    pub(super) fn open(destination: Destination) -> io::Result<Self> {
        Ok(match destination {
            // The descriptor itself: the standard library's own buffer forgets how far a failed write came.
            Destination::Stdout => Self::Stream(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            Destination::File(settings) => Self::File(RotatedFile::open(settings)?),
            Destination::Channel(sender) => Self::Channel(sender),
            Destination::Callback(callback) => Self::Callback(callback),
        })
    }

    /// How large a write should get.
    pub(super) fn batch_bytes(&self) -> usize {
        const BATCH_BYTES: usize = 256 * 1024;
        match self {
            Self::File(file) => usize::try_from(file.settings.rotate_bytes).unwrap_or(BATCH_BYTES).min(BATCH_BYTES),
            Self::Stream(_) | Self::Channel(_) | Self::Callback(_) => BATCH_BYTES,
        }
    }

    /// Whether what is written still goes where the name says: somebody may have moved or removed a file.
    pub(super) fn is_in_place(&self) -> bool {
        match self {
            Self::File(file) => file.is_in_place(),
            Self::Stream(_) | Self::Channel(_) | Self::Callback(_) => true,
        }
    }

    /// Called before the first byte of a batch of whole lines: the moment to rotate.
    pub(super) fn begin(&mut self, bytes: usize) -> io::Result<()> {
        match self {
            Self::File(file) => file.begin(bytes),
            Self::Stream(_) | Self::Channel(_) | Self::Callback(_) => Ok(()),
        }
    }

    /// Writes a part of `lines`, and says how many bytes it was.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.write(lines),
            Self::File(file) => file.write(lines),
            Self::Channel(sender) => {
                let line = lines.split(|byte| *byte == b'\n').next().unwrap_or(lines);
                match sender.try_send(text(line)?.to_owned()) {
                    Ok(()) => Ok(line.len().saturating_add(1).min(lines.len())),
                    Err(TrySendError::Full(_)) => Err(io::ErrorKind::WouldBlock.into()),
                    Err(TrySendError::Closed(_)) => Err(io::ErrorKind::BrokenPipe.into()),
                }
            }
            Self::Callback(callback) => callback(text(lines)?).map(|()| lines.len()),
        }
    }

    /// Makes what was written durable, where that means anything.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.file.sync_data(),
            Self::Stream(_) | Self::Channel(_) | Self::Callback(_) => Ok(()),
        }
    }
}

fn text(lines: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(lines).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A file that is renamed when it is full.
#[derive(Debug)]
pub(super) struct RotatedFile {
    settings: FileSettings,
    file: File,
    bytes: u64,
}

impl RotatedFile {
    fn open(settings: FileSettings) -> io::Result<Self> {
        let (file, bytes) = open(&settings.path)?;
        Ok(Self { settings, file, bytes })
    }

    fn begin(&mut self, bytes: usize) -> io::Result<()> {
        if !self.is_in_place() {
            (self.file, self.bytes) = open(&self.settings.path)?;
        }
        let after = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.bytes > 0 && after > self.settings.rotate_bytes {
            self.rotate()?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes = self.bytes.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        Ok(written)
    }

    /// Whether the open file is still the one by that name: somebody may have moved or removed it.
    fn is_in_place(&self) -> bool {
        let (Ok(open), Ok(named)) = (self.file.metadata(), fs::metadata(&self.settings.path)) else { return false };
        (open.dev(), open.ino()) == (named.dev(), named.ino())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let numbered = |number: u32| {
            let mut path = self.settings.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        // Out of the way first: were this the step that fails, the old files would move up at every attempt. One that
        // an attempt left there goes on first, and this file has its turn at the next line.
        if self.settings.keep > 0 && !numbered(0).is_file() {
            rename_if_there(&self.settings.path, &numbered(0))?;
        }
        // From the oldest on: each takes the name of the one before it, so nothing is overwritten but the oldest.
        for number in (0..self.settings.keep).rev() {
            rename_if_there(&numbered(number), &numbered(number.saturating_add(1)))?;
        }
        if self.settings.keep == 0 {
            fs::remove_file(&self.settings.path)?;
        }
        (self.file, self.bytes) = open(&self.settings.path)?;
        Ok(())
    }
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Opens for appending, and ends a line that a crash left open, so that the next record stands on its own.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
    let mut bytes = file.metadata()?.len();
    if bytes > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            bytes = bytes.saturating_add(1);
        }
    }
    Ok((file, bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn sink(path: &Path, rotate_bytes: u64, keep: u32) -> Sink {
        Sink::open(Destination::File(FileSettings { path: path.to_owned(), rotate_bytes, keep })).unwrap()
    }

    fn write(sink: &mut Sink, line: &str) {
        sink.begin(line.len()).unwrap();
        assert_eq!(sink.write(line.as_bytes()).unwrap(), line.len());
    }

    #[test]
    fn rotation_keeps_every_line_whole_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut sink = sink(&path, 25, 10);
        for number in 10..20 {
            write(&mut sink, &format!("line {number}\n"));
        }
        let read = |number: u32| fs::read_to_string(directory.path().join(format!("audit.jsonl.{number}"))).unwrap();
        let old: String = (1..=3).rev().map(read).collect();
        let all = old + &fs::read_to_string(&path).unwrap();
        assert_eq!(all, (10..20).map(|number| format!("line {number}\n")).collect::<String>());
        assert!(!directory.path().join("audit.jsonl.4").exists());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn only_the_oldest_file_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut sink = sink(&path, 4, 2);
        for line in ["a\n", "bbbb\n", "cccc\n", "dddd\n"] {
            write(&mut sink, line);
        }
        let mut names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]);
        assert_eq!(fs::read_to_string(directory.path().join("audit.jsonl.2")).unwrap(), "bbbb\n");
    }

    #[test]
    fn a_rotation_that_cannot_be_done_moves_nothing_however_often_it_is_tried() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        fs::write(directory.path().join("audit.jsonl.1"), "older\n").unwrap();
        let mut sink = sink(&path, 4, 3);
        write(&mut sink, "now\n");
        // A directory in the way of the first step.
        fs::create_dir_all(directory.path().join("audit.jsonl.0/in-the-way")).unwrap();
        for _ in 0..5 {
            sink.begin(4).unwrap_err();
        }
        assert_eq!(fs::read_to_string(directory.path().join("audit.jsonl.1")).unwrap(), "older\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "now\n");

        fs::remove_dir_all(directory.path().join("audit.jsonl.0")).unwrap();
        write(&mut sink, "next\n");
        assert_eq!(fs::read_to_string(directory.path().join("audit.jsonl.1")).unwrap(), "now\n");
        assert_eq!(fs::read_to_string(directory.path().join("audit.jsonl.2")).unwrap(), "older\n");

        fs::write(directory.path().join("audit.jsonl.0"), "left\n").unwrap();
        for line in ["a\n", "bbbb\n"] {
            write(&mut sink, line);
        }
        let mut files = (1..=3).map(|number| directory.path().join(format!("audit.jsonl.{number}")));
        let whole: String = files.by_ref().map(|file| fs::read_to_string(file).unwrap()).collect();
        assert!(whole.contains("left\n") && whole.contains("now\n"), "{whole}");
    }

    #[test]
    fn a_line_that_a_crash_left_open_does_not_swallow_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        fs::write(&path, "whole\n{\"cut").unwrap();
        write(&mut sink(&path, 1000, 1), "next\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\n{\"cut\nnext\n");
    }

    #[test]
    fn a_file_that_somebody_moved_away_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut sink = sink(&path, 1000, 1);
        write(&mut sink, "before\n");
        fs::rename(&path, directory.path().join("taken")).unwrap();
        write(&mut sink, "after\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "after\n");
    }
}
