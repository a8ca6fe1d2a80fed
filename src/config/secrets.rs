//! Secrets by reference: `file:PATH` or `env:NAME`. The one place that reads the environment.

use std::fmt;
use std::path::PathBuf;

use crate::secret::Secret;

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file, to be read again when it changes.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
}

/// The file's path, or `env:NAME`.
impl fmt::Display for SecretSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Environment(name) => write!(formatter, "env:{name}"),
        }
    }
}

/// A secret and where it came from.
#[derive(Clone, Debug)]
pub struct SecretValue {
    /// Where it comes from.
    pub source: SecretSource,
    /// What stood there at load, without the line break at its end.
    pub value: Secret,
}

/// Why a reference gave no secret. Never shows the text of what may be a secret itself.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Neither `file:` nor `env:`.
    #[error("a secret must not stand in the configuration")]
    Inline,
    /// Nothing after the prefix.
    #[error("the secret's reference names nothing")]
    Nameless,
    /// The file could not be read.
    #[error("secret file `{}` cannot be read: {cause}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The variable is not set.
    #[error("environment variable `{0}` is not set")]
    Unset(String),
    /// The file or the variable is empty.
    #[error("the secret in `{0}` is empty")]
    Empty(String),
    /// The secret holds control characters, which no header may carry.
    #[error("the secret in `{0}` holds a control character")]
    Control(String),
}

/// Variables by name: the process's own, or a test's.
pub struct Environment<'a>(Box<Variable<'a>>);

type Variable<'a> = dyn Fn(&str) -> Option<String> + Send + Sync + 'a;

impl Environment<'static> {
    /// The process's environment.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment, for `env:` references")]
    pub fn process() -> Self {
        Self(Box::new(|name| std::env::var(name).ok()))
    }
}

impl<'a> Environment<'a> {
    /// What `variable` answers.
    pub fn of(variable: impl Fn(&str) -> Option<String> + Send + Sync + 'a) -> Self {
        Self(Box::new(variable))
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.0)(name)
    }
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Environment")
    }
}

/// Where `reference` points; relative paths are below `directory`.
///
/// # Errors
/// [`SecretError::Inline`] and [`SecretError::Nameless`].
pub(super) fn source_of(reference: &str, directory: &std::path::Path) -> Result<SecretSource, SecretError> {
    let (source, name) = match reference.split_once(':') {
        Some(("file", path)) => (SecretSource::File(directory.join(path)), path),
        Some(("env", name)) => (SecretSource::Environment(name.to_owned()), name),
        _ => return Err(SecretError::Inline),
    };
    if name.trim().is_empty() { Err(SecretError::Nameless) } else { Ok(source) }
}

/// Reads what `source` points at.
///
/// # Errors
/// [`SecretError`] when it cannot be read or is empty.
pub(super) fn read(source: SecretSource, environment: &Environment<'_>) -> Result<SecretValue, SecretError> {
    let (text, name) = match &source {
        SecretSource::File(path) => {
            let bytes = super::load::read_bounded(path)
                .map_err(|cause| SecretError::File { path: path.clone(), cause: cause.to_string() })?;
            let text = String::from_utf8(bytes)
                .map_err(|_| SecretError::File { path: path.clone(), cause: "it is not UTF-8".to_owned() })?;
            (text, path.display().to_string())
        }
        SecretSource::Environment(name) => {
            (environment.variable(name).ok_or_else(|| SecretError::Unset(name.clone()))?, name.clone())
        }
    };
    let text = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).unwrap_or(&text);
    if text.trim().is_empty() {
        return Err(SecretError::Empty(name));
    }
    Ok(SecretValue { value: Secret::new(text), source })
}

/// Refuses a secret that is to stand in a header or a form and cannot.
///
/// # Errors
/// [`SecretError::Control`].
pub(super) fn single_line(secret: &SecretValue) -> Result<(), SecretError> {
    if !secret.value.expose().chars().any(char::is_control) {
        return Ok(());
    }
    Err(SecretError::Control(match &secret.source {
        SecretSource::File(path) => path.display().to_string(),
        SecretSource::Environment(name) => name.clone(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_from_a_file_or_the_environment_only() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("key"), "from file\r\n").unwrap();
        let environment = Environment::of(|name| (name == "KEY").then(|| "from variable".to_owned()));
        let read = |reference: &str| read(source_of(reference, directory.path())?, &environment);
        assert_eq!(read("file:key").unwrap().value.expose(), "from file");
        assert_eq!(read("env:KEY").unwrap().value.expose(), "from variable");
        assert!(matches!(read("env:OTHER"), Err(SecretError::Unset(_))));
        assert!(matches!(read("file:absent"), Err(SecretError::File { .. })));
        assert!(matches!(read("file:"), Err(SecretError::Nameless)));
        let error = read("hunter2:secret").unwrap_err();
        assert!(matches!(error, SecretError::Inline) && !error.to_string().contains("hunter2"));
    }

    #[test]
    fn an_empty_secret_is_no_secret() {
        let environment = Environment::of(|_| Some("\n".to_owned()));
        let source = SecretSource::Environment("KEY".to_owned());
        assert!(matches!(read(source, &environment), Err(SecretError::Empty(_))));
    }
}
