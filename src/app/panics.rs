//! What the process does about its own faults: a panic is logged by its place, and leaves no memory behind.

use std::panic::{self, PanicHookInfo};

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Logs each panic by its place and thread. Its message is left out: it may hold what a caller or an issuer sent.
pub(super) fn log_places() {
    panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        tracing::error!(place, thread = thread.name().unwrap_or_default(), "a fault of Doorward (panic): report it");
    }));
}

/// Writes no core file, and lets no other process of the same user read this one's memory: it holds keys and tokens.
pub(super) fn keep_memory_private() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core files cannot be turned off");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the process's memory cannot be kept from others of its user");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// Its presence in the working directory tells the test's own second run from its first.
    const MARK: &str = "panic-now";

    #[test]
    fn a_panic_is_logged_by_its_place_without_its_message() {
        if Path::new(MARK).exists() {
            crate::app::log_to_stderr(false);
            log_places();
            panic::catch_unwind(|| panic!("a token: s3cret\n\u{1b}[2J")).unwrap_err();
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(MARK), "").unwrap();
        let ran = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "app::panics::tests::a_panic_is_logged_by_its_place_without_its_message", "--nocapture"])
            .current_dir(directory.path())
            .output()
            .unwrap();
        let told = String::from_utf8(ran.stderr).unwrap();
        assert!(ran.status.success(), "{told}");
        assert!(told.contains("a fault of Doorward (panic)") && told.contains("src/app/panics.rs:"), "{told}");
        assert!(!told.contains("s3cret") && !told.contains("[2J"), "{told}");
    }
}
