//! Reads the files of a configuration: `doorward.yaml`, and `*.yaml` and `*.cedar` directly in its policies directory.

use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use rustix::fs::OFlags;

use super::check::{self, Input};
use super::checked::{Checked, PolicySource};
use super::faults::{Fault, Faults};
use super::form::{self, Salvage};
use super::placed::Place;
use super::raw;
use super::secrets::Environment;
use super::source_file::SourceFile;
use crate::hex::hex;

/// Largest file of a configuration, and largest secret, certificate or key set that it refers to.
pub const FILE_LIMIT_BYTES: u64 = 1024 * 1024;

/// Largest revocation list that it refers to: those of public authorities hold a line for each of many thousands.
pub const REVOCATIONS_LIMIT_BYTES: u64 = 16 * 1024 * 1024;

/// Most files of a policies directory.
pub const FILE_LIMIT: usize = 1000;

/// How deep unread directories are looked into.
const FOLDER_DEPTH: usize = 8;

const DEFAULT_POLICIES: &str = "policies";

/// Reads and checks the configuration whose main file is `path`, with the process's environment.
///
/// # Errors
/// Every fault that it holds.
pub fn load(path: &Path) -> Result<Checked, Faults> {
    load_with(path, &Environment::process())
}

/// Reads and checks the configuration whose main file is `path`.
///
/// # Errors
/// Every fault that it holds.
pub fn load_with(path: &Path, environment: &Environment<'_>) -> Result<Checked, Faults> {
    let (checked, faults) = survey(path, environment);
    faults.or(checked)
}

/// What the configuration whose main file is `path` says as far as it is sound, and every fault that it holds. Only
/// without a fault is it a configuration.
pub(super) fn survey(path: &Path, environment: &Environment<'_>) -> (Checked, Faults) {
    let mut faults = Faults::default();
    let Sources { main, config, directory, files, incomplete, hash } = Sources::read(path, &mut faults);
    let mut policies = Vec::new();
    let mut cedar = Vec::new();
    let mut broken = Vec::new();
    if incomplete {
        broken.push((SourceFile::new(&directory, ""), Salvage::default()));
    }
    for file in files {
        if file.path.extension().is_some_and(|extension| extension == "cedar") {
            let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            cedar.push(PolicySource { file, guardrail: name.starts_with("guardrails") });
            continue;
        }
        match form::read::<raw::Policies>(&file, &mut faults) {
            Ok(rules) => policies.push((file, rules)),
            Err(salvage) => broken.push((file, salvage)),
        }
    }
    let main = main.unwrap_or_else(|| SourceFile::new(path, ""));
    check::check(&Input { main, config, policies, broken, cedar, hash, environment }, faults)
}

/// As [`load_with`], of texts that lie in no file: of the main file, and of the one file of rules.
#[cfg(any(test, fuzzing))]
pub(crate) fn survey_texts(main: &str, rules: &str, environment: &Environment<'_>) -> (Checked, Faults) {
    let mut faults = Faults::default();
    let (main, rules) = (SourceFile::new("doorward.yaml", main), SourceFile::new("policies/rules.yaml", rules));
    let read = with_plain_lines(main.clone(), &mut faults);
    let config = read.map_or_else(|| Err(Salvage::default()), |file| form::read(&file, &mut faults));
    let read = with_plain_lines(rules.clone(), &mut faults);
    let (mut policies, mut broken) = (Vec::new(), Vec::new());
    match read.map_or_else(|| Err(Salvage::default()), |file| form::read(&file, &mut faults)) {
        Ok(read) => policies.push((rules, read)),
        Err(salvage) => broken.push((rules, salvage)),
    }
    check::check(&Input { main, config, policies, broken, cedar: Vec::new(), hash: Arc::from(""), environment }, faults)
}

/// The hash of what the configuration's files hold now, as [`Checked::hash`] of what was loaded.
pub(super) fn hash_of(path: &Path) -> Arc<str> {
    let mut ignored = Faults::default();
    Sources::read(path, &mut ignored).hash
}

/// The files of a configuration, as they were read.
struct Sources {
    main: Option<Arc<SourceFile>>,
    config: Result<raw::Config, Salvage>,
    directory: PathBuf,
    files: Vec<Arc<SourceFile>>,
    /// Whether one of them could not be read.
    incomplete: bool,
    hash: Arc<str>,
}

impl Sources {
    fn read(path: &Path, faults: &mut Faults) -> Self {
        let main = source(path, faults);
        let config = main.as_ref().map_or_else(|| Err(Salvage::default()), |file| form::read(file, faults));
        // Without a readable main file the usual directory is looked at, so that its faults show too.
        let named = config.as_ref().ok().and_then(|config: &raw::Config| config.policies.as_ref());
        let directory = directory_of(path).join(named.map_or(DEFAULT_POLICIES, |named| named.value.as_str()));
        let at = (main.as_ref(), named.map(|named| named.place).unwrap_or_default());
        let listed = listed(&directory, at, path, faults);
        let files: Vec<Arc<SourceFile>> = listed.iter().filter_map(|file| source(file, faults)).collect();
        let hash = hash(main.iter().chain(&files), path, &directory);
        let incomplete = files.len() < listed.len();
        Self { main, config, directory, files, incomplete, hash }
    }
}

/// The directory that a configuration is read from, and its policies directory as far as it can be known.
/// For watching: a file that cannot be read yet is watched by the usual names.
#[must_use]
pub fn directories(path: &Path) -> [PathBuf; 2] {
    let mut ignored = Faults::default();
    let config: Option<raw::Config> = source(path, &mut ignored).and_then(|file| form::read(&file, &mut ignored).ok());
    let named = config.and_then(|config| config.policies).map(|named| named.value);
    let policies = directory_of(path).join(named.as_deref().unwrap_or(DEFAULT_POLICIES));
    [directory_of(path), policies]
}

/// The files that a policies directory holds for a configuration, sorted. Unreadable means none.
pub(super) fn policy_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // `..data` and its like are how Kubernetes swaps a whole directory; the links beside them are read.
        if !name.starts_with('.') && !path.is_dir() && !name.ends_with('~') {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a file of at most [`FILE_LIMIT_BYTES`].
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, FILE_LIMIT_BYTES)
}

/// Reads a file of at most `limit_bytes`. Never waits for a pipe's other end.
pub(super) fn read_up_to(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let is_file = |metadata: std::fs::Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")),
    };
    // To open a pipe is to wait for its writer, so its kind comes first; without waiting, lest it was swapped since.
    is_file(std::fs::metadata(path)?)?;
    let without_waiting = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(without_waiting).open(path)?;
    is_file(file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > limit_bytes) {
        let message = format!("it is larger than {} MiB", limit_bytes / (1024 * 1024));
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// A digest of what the files hold. One that cannot be read counts too, so that its return is seen.
pub(super) fn contents(files: &[PathBuf]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    for file in files {
        let content = read_up_to(file, REVOCATIONS_LIMIT_BYTES);
        let (mark, content) = content.as_ref().map_or((0_u8, &[][..]), |content| (1, content.as_slice()));
        context.update(file.as_os_str().as_encoded_bytes());
        context.update(&[0, mark]);
        context.update(digest::digest(&digest::SHA256, content).as_ref());
    }
    context.finish().as_ref().to_vec()
}

pub(super) fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => PathBuf::from("."),
    }
}

fn source(path: &Path, faults: &mut Faults) -> Option<Arc<SourceFile>> {
    let nothing = || SourceFile::new(path, "");
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(cause) => {
            let message = format!("the file cannot be read: {cause}");
            faults.push(Fault::new("unreadable", &nothing(), Place::default(), message));
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => with_plain_lines(SourceFile::new(path, text), faults),
        Err(error) => {
            let file = SourceFile::new(path, String::from_utf8_lossy(error.as_bytes()).into_owned());
            let place = file.place(error.utf8_error().valid_up_to(), 1);
            faults.push(Fault::new("not_utf8", &file, place, "the file is not UTF-8"));
            None
        }
    }
}

/// The file, where all readers find the same lines in it. YAML and Cedar end a line, and so a comment, at a carriage return
/// alone; an editor shows the rule that follows as part of the comment.
fn with_plain_lines(file: Arc<SourceFile>, faults: &mut Faults) -> Option<Arc<SourceFile>> {
    let mut returns = file.text.match_indices('\r').map(|(at, _)| at);
    let Some(at) = returns.find(|at| !file.text.get(at + 1..).is_some_and(|rest| rest.starts_with('\n'))) else {
        return Some(file);
    };
    let fault = Fault::new("carriage_return", &file, file.place(at, 1), "a carriage return stands alone");
    faults.push(fault.help("remove it, or end the line with a line feed: some read it as a line's end, others do not"));
    None
}

/// The policy files to read; everything that would silently not be read is a fault.
fn listed(
    directory: &Path,
    (main, place): (Option<&Arc<SourceFile>>, Place),
    path: &Path,
    faults: &mut Faults,
) -> Vec<PathBuf> {
    let whole = |path: &Path| SourceFile::new(path, "");
    let all = match policy_files(directory) {
        Ok(all) => all,
        Err(cause) => {
            let message = format!("policies directory `{}` cannot be read: {cause}", directory.display());
            let file = main.cloned().unwrap_or_else(|| whole(path));
            faults.push(Fault::new("policies_unreadable", &file, place, message));
            return Vec::new();
        }
    };
    for (folder, unread) in unread_rules(directory) {
        let message = format!("the directory is not read, and holds `{}`", unread.display());
        let fault = Fault::new("directory_unread", &whole(&folder), Place::default(), message);
        faults.push(fault.help("move its files up: rules stand directly in the policies directory"));
    }
    let mut files = Vec::new();
    for file in all {
        let extension = file.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("yaml" | "cedar") if same_file(&file, path) => {
                let fault = Fault::new("policies_mixed", &whole(&file), Place::default(), "it is no policy file");
                faults.push(fault.help("keep policies in a directory of their own"));
            }
            Some("yaml" | "cedar") => files.push(file),
            Some("yml") => {
                let message = "the file is not read: its name ends in `.yml`";
                let fault = Fault::new("file_name", &whole(&file), Place::default(), message);
                faults.push(fault.help("rename it to end in `.yaml`"));
            }
            _ => {}
        }
    }
    if files.len() > FILE_LIMIT {
        let message = format!("the directory holds {} policy files; at most {FILE_LIMIT} are read", files.len());
        faults.push(Fault::new("too_many_files", &whole(directory), Place::default(), message));
        files.truncate(FILE_LIMIT);
    }
    files
}

/// Subdirectories that hold rules which nobody reads, each with the first of them. `cases` holds tests, and what begins
/// with a dot is how Kubernetes swaps a whole directory.
fn unread_rules(directory: &Path) -> Vec<(PathBuf, PathBuf)> {
    let folders = sorted_entries(directory).into_iter().filter(|path| path.is_dir());
    let is_read = |path: &PathBuf| path.file_name().is_some_and(|name| !hidden(name) && name != "cases");
    folders.filter(is_read).filter_map(|folder| Some((folder.clone(), first_rules(&folder, FOLDER_DEPTH)?))).collect()
}

/// The first file below `folder` that would be read as rules one level up; links are not followed.
fn first_rules(folder: &Path, depth: usize) -> Option<PathBuf> {
    sorted_entries(folder).into_iter().filter(|path| path.file_name().is_some_and(|name| !hidden(name))).find_map(
        |path| {
            if path.is_dir() {
                let deeper = depth.checked_sub(1).filter(|_| !path.is_symlink());
                return deeper.and_then(|depth| first_rules(&path, depth));
            }
            let extension = path.extension()?.to_string_lossy().to_lowercase();
            matches!(&*extension, "yaml" | "yml" | "cedar")
                .then(|| path.strip_prefix(folder).map_or(path.clone(), Path::to_owned))
        },
    )
}

fn sorted_entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).take(FILE_LIMIT).collect();
    paths.sort();
    paths
}

fn hidden(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with('.')
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Names relative to the configuration, so that the same files have the same hash wherever they lie.
fn hash<'a>(files: impl Iterator<Item = &'a Arc<SourceFile>>, main: &Path, directory: &Path) -> Arc<str> {
    let mut context = digest::Context::new(&digest::SHA256);
    for file in files {
        let name = file.path.strip_prefix(directory).map_or_else(
            |_| main.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            |below| format!("policies/{}", below.display()),
        );
        for part in [name.as_bytes(), file.text.as_bytes()] {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
    }
    hex(context.finish().as_ref().get(..8).unwrap_or_default()).into()
}
