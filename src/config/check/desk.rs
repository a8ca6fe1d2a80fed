//! Where the checks put what they find, and what they ask of a single value.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::checked::Referenced;
use crate::config::faults::{Declared, Fault, Faults};
use crate::config::load::{FILE_LIMIT_BYTES, REVOCATIONS_LIMIT_BYTES, contents, directory_of, read_up_to};
use crate::config::placed::{Place, Placed};
use crate::config::raw::Reasoned;
use crate::config::secrets::{self, Environment, SecretError, SecretSource, SecretValue};
use crate::config::source_file::SourceFile;
use crate::config::units::{DurationText, SizeText, UnitError};
use crate::secret::Secret;

/// Faults found so far and files referred to.
pub(super) struct Desk<'a> {
    environment: &'a Environment<'a>,
    faults: RefCell<Faults>,
    referenced: RefCell<Referenced>,
}

impl<'a> Desk<'a> {
    pub(super) fn new(environment: &'a Environment<'a>, faults: Faults) -> Self {
        Self { environment, faults: RefCell::new(faults), referenced: RefCell::default() }
    }

    pub(super) fn scope<'b>(&'b self, file: &'b Arc<SourceFile>) -> Scope<'b> {
        Scope { desk: self, file }
    }

    pub(super) fn close(self) -> (Faults, Referenced) {
        (self.faults.into_inner(), self.referenced.into_inner())
    }

    /// Notes a file that is about to be read. What it held at the first of several readings is what counts.
    fn refer_to(&self, path: &Path) {
        let mut referenced = self.referenced.borrow_mut();
        referenced.entry(path.to_owned()).or_insert_with(|| contents(&[path.to_owned()]));
    }
}

/// One file under check.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    desk: &'a Desk<'a>,
    /// The file.
    pub(super) file: &'a Arc<SourceFile>,
}

/// PEM label of revocation lists.
pub(super) const REVOCATIONS: &str = "X509 CRL";

const SHORTEST_REASON: usize = 8;

impl Scope<'_> {
    /// A fault of this file, to be told once it is complete.
    pub(super) fn fault(&self, code: &'static str, place: Place, message: impl Into<String>) -> Fault {
        Fault::new(code, self.file, place, message)
    }

    /// A fault of another file.
    pub(super) fn fault_of(
        &self,
        file: &Arc<SourceFile>,
        code: &'static str,
        place: Place,
        message: impl Into<String>,
    ) -> Fault {
        Fault::new(code, file, place, message)
    }

    /// Where something of this file stands.
    pub(super) fn declared(&self, place: Place) -> Declared {
        Declared { file: self.file.clone(), place }
    }

    /// What `make` gives, if it told no fault on the way: only that is worth a second look.
    pub(super) fn sound<T>(&self, make: impl FnOnce() -> Option<T>) -> Option<T> {
        let before = self.told();
        make().filter(|_| self.told() == before)
    }

    /// How many faults were told so far, of all files.
    pub(super) fn told(&self) -> usize {
        self.desk.faults.borrow().len()
    }

    pub(super) fn tell(&self, fault: Fault) {
        self.desk.faults.borrow_mut().push(fault);
    }

    /// Tells a fault with its mend.
    pub(super) fn refuse(&self, code: &'static str, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.tell(self.fault(code, place, message).help(help));
    }

    /// A value that must be there; `place` is its owner's name.
    pub(super) fn required<'b, T>(&self, value: Option<&'b T>, owner: &Placed<String>, key: &str) -> Option<&'b T> {
        if value.is_none() {
            let message = format!("`{}` lacks `{key}`", owner.value);
            self.refuse("missing_key", owner.place, message, format!("add `{key}: …`"));
        }
        value
    }

    /// A list that guards something, so it must hold a text, and only texts that are not empty.
    pub(super) fn texts(&self, list: &Placed<Vec<Placed<String>>>, key: &str) -> Vec<String> {
        self.not_empty(list, key);
        for text in list.value.iter().filter(|text| text.trim().is_empty()) {
            self.refuse("empty_value", text.place, format!("an entry of `{key}` is empty"), "remove it");
        }
        list.value.iter().map(|text| text.value.clone()).collect()
    }

    /// Refuses an empty list where a guard belongs.
    pub(super) fn not_empty<T>(&self, list: &Placed<Vec<T>>, key: &str) {
        if list.value.is_empty() {
            let message = format!("`{key}` is empty");
            self.refuse("empty_list", list.place, message, "name at least one; an empty list guards nothing");
        }
    }

    pub(super) fn duration(&self, text: Option<&Placed<DurationText>>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        match text.duration() {
            Ok(duration) if duration.is_zero() => {
                self.refuse("zero", text.place, "the duration is zero", "give it a length, such as `30s`");
                default
            }
            Ok(duration) => duration,
            Err(error) => {
                let mend = match &error {
                    UnitError::Missing(number) => format!("write `{number}s`, or another of ms, s, m, h, d"),
                    UnitError::Unknown(_) | UnitError::Number(_) | UnitError::TooLarge(_) => {
                        "write a whole number and one of ms, s, m, h, d, such as `30s`".to_owned()
                    }
                };
                self.refuse("duration", text.place, error.to_string(), mend);
                default
            }
        }
    }

    /// A duration that must not be longer than `longest`.
    pub(super) fn duration_up_to(
        &self,
        text: Option<&Placed<DurationText>>,
        default: Duration,
        (longest, written): (Duration, &str),
    ) -> Duration {
        let duration = self.duration(text, default);
        match text {
            Some(text) if duration > longest => {
                let message = format!("`{}` is longer than `{written}`", text.value.0);
                self.refuse("too_long", text.place, message, format!("at most `{written}` is allowed here"));
                default
            }
            _ => duration,
        }
    }

    pub(super) fn size(&self, text: Option<&Placed<SizeText>>, default: u64) -> u64 {
        let Some(text) = text else { return default };
        match text.bytes() {
            Ok(0) => {
                self.refuse("zero", text.place, "the size is zero", "give it a size, such as `10MiB`");
                default
            }
            Ok(bytes) => bytes,
            Err(error) => {
                let mend = "write a whole number and one of B, kB, MB, GB, KiB, MiB, GiB, such as `10MiB`";
                self.refuse("size", text.place, error.to_string(), mend);
                default
            }
        }
    }

    /// A count of at least one and at most `most`.
    pub(super) fn count(&self, number: Option<&Placed<u64>>, default: u32, most: u32) -> u32 {
        let Some(number) = number else { return default };
        match u32::try_from(number.value) {
            Ok(count) if (1..=most).contains(&count) => count,
            _ => {
                let message = format!("`{}` is out of range", number.value);
                self.refuse("count", number.place, message, format!("give a number from 1 to {most}"));
                default
            }
        }
    }

    /// A reason that says something.
    pub(super) fn reason(&self, reason: &Reasoned) -> Arc<str> {
        self.reason_text(&reason.reason)
    }

    pub(super) fn reason_text(&self, reason: &Placed<String>) -> Arc<str> {
        if reason.trim().chars().count() < SHORTEST_REASON {
            let message = "the reason says too little";
            let help = format!("write at least {SHORTEST_REASON} characters for whoever reads this file next");
            self.refuse("reason", reason.place, message, help);
        }
        reason.value.as_str().into()
    }

    /// A path below this file's directory, not looked at.
    pub(super) fn path(&self, path: &Placed<String>) -> PathBuf {
        if path.trim().is_empty() {
            self.refuse("empty_value", path.place, "the path is empty", "name a file");
        }
        directory_of(&self.file.path).join(&path.value)
    }

    /// A file that can be read now.
    pub(super) fn readable(&self, path: &Placed<String>) -> PathBuf {
        self.read(path, FILE_LIMIT_BYTES).0
    }

    /// What a file holds now.
    pub(super) fn bytes(&self, path: &Placed<String>) -> Option<Vec<u8>> {
        self.read(path, FILE_LIMIT_BYTES).1
    }

    fn read(&self, path: &Placed<String>, limit_bytes: u64) -> (PathBuf, Option<Vec<u8>>) {
        if let Some(inner) = path.strip_prefix("file:") {
            let help = format!("write `{inner}`; `file:` is for secrets");
            self.refuse("not_a_secret", path.place, "a plain path is expected here", help);
            return (PathBuf::new(), None);
        }
        let full = self.path(path);
        self.desk.refer_to(&full);
        match read_up_to(&full, limit_bytes) {
            Ok(bytes) if bytes.is_empty() => {
                let message = format!("file `{}` is empty", full.display());
                self.tell(self.fault("file_empty", path.place, message));
            }
            Ok(bytes) => return (full, Some(bytes)),
            Err(cause) => {
                let message = format!("file `{}` cannot be read: {cause}", full.display());
                let help = "relative paths begin at the directory of this file";
                self.refuse("file_unreadable", path.place, message, help);
            }
        }
        (full, None)
    }

    /// A file of PEM that holds `label`, such as `CERTIFICATE`.
    pub(super) fn pem(&self, path: &Placed<String>, label: &str) -> PathBuf {
        let limit_bytes = if label == REVOCATIONS { REVOCATIONS_LIMIT_BYTES } else { FILE_LIMIT_BYTES };
        let (full, bytes) = self.read(path, limit_bytes);
        if let Some(bytes) = bytes
            && !String::from_utf8_lossy(&bytes).contains(&format!("-----BEGIN {label}-----"))
        {
            let message = format!("file `{}` holds no PEM `{label}`", full.display());
            self.tell(self.fault("file_not_pem", path.place, message));
        }
        full
    }

    /// A secret by reference, read now.
    pub(super) fn secret(&self, reference: &Placed<String>) -> Option<SecretValue> {
        let read = secrets::source_of(&reference.value, &directory_of(&self.file.path)).and_then(|source| {
            if let SecretSource::File(path) = &source {
                self.desk.refer_to(path);
            }
            secrets::read(source, self.desk.environment)
        });
        read.map_err(|error| self.secret_fault(reference, &error)).ok()
    }

    /// A variable of the environment, where it is set to anything.
    pub(super) fn variable(&self, name: &str) -> Option<Secret> {
        let source = secrets::source_of(&format!("env:{name}"), Path::new("")).ok()?;
        secrets::read(source, self.desk.environment).ok().map(|secret| secret.value)
    }

    /// A secret of one line, for a header or a form.
    pub(super) fn secret_line(&self, reference: &Placed<String>) -> Option<SecretValue> {
        let secret = self.secret(reference)?;
        secrets::single_line(&secret).map_err(|error| self.secret_fault(reference, &error)).ok()?;
        Some(secret)
    }

    /// A private key by reference.
    pub(super) fn private_key(&self, reference: &Placed<String>) -> Option<SecretValue> {
        let secret = self.secret(reference)?;
        if !secret.value.expose().contains("PRIVATE KEY-----") {
            self.refuse("key_not_pem", reference.place, "it refers to no PEM private key", "point it at a PEM file");
        }
        Some(secret)
    }

    fn secret_fault(&self, reference: &Placed<String>, error: &SecretError) {
        let help = match error {
            SecretError::Inline => "put it in a file and write `file:PATH`, or write `env:NAME`",
            SecretError::Nameless => "write `file:PATH` or `env:NAME`",
            SecretError::File { .. } => "relative paths begin at the directory of this file",
            SecretError::Unset(_) => "set it where Doorward is started, or use `file:PATH`",
            SecretError::Empty(_) => "an empty secret protects nothing",
            SecretError::Control(_) => "it must be one line of printable characters",
        };
        let code = match error {
            SecretError::Inline => "secret_inline",
            SecretError::Nameless => "secret_nameless",
            SecretError::File { .. } => "secret_unreadable",
            SecretError::Unset(_) => "secret_unset",
            SecretError::Empty(_) => "secret_empty",
            SecretError::Control(_) => "secret_not_a_line",
        };
        let fault = self.fault(code, reference.place, error.to_string()).help(help);
        self.tell(if matches!(error, SecretError::Inline) { fault.hiding(&reference.value) } else { fault });
    }
}
