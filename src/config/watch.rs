//! Tells when a configuration's files have changed: by the system's events, by looking now and then, and on demand.
//!
//! Directories are watched rather than files, since Kubernetes swaps a link and editors rename; what counts is the
//! content, so a file that is written again unchanged says nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::checked::Referenced;
use super::load;

/// How patiently files are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchSettings {
    /// From the first event to the first look.
    pub debounce: Duration,
    /// Between two looks that must see the same.
    pub look: Duration,
    /// Between looks without any event, for file systems that send none.
    pub poll: Duration,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self { debounce: Duration::from_millis(200), look: Duration::from_millis(100), poll: Duration::from_secs(5) }
    }
}

/// Looks at files that never come to rest, before they are taken as they are.
const MOST_LOOKS: usize = 50;

/// Asks for a reload whether or not anything changed, as SIGHUP does.
#[derive(Clone, Debug)]
pub struct ReloadTrigger(mpsc::Sender<()>);

impl ReloadTrigger {
    /// Asks for a reload. One that is already asked for is enough.
    pub fn reload(&self) {
        let _already_asked = self.0.try_send(());
    }
}

/// Watches the files of one configuration. Dropped, it stops.
#[derive(Debug)]
pub struct ConfigWatcher {
    changes: mpsc::Receiver<()>,
    trigger: ReloadTrigger,
    following: watch::Sender<Following>,
    task: JoinHandle<()>,
}

/// What was loaded last.
#[derive(Clone, Debug, Default)]
struct Following {
    /// Files that it refers to, as they were read.
    referenced: Referenced,
    /// Its hash; `None` before the first load.
    loaded: Option<Arc<str>>,
}

impl ConfigWatcher {
    /// Watches the configuration whose main file is `config`. To be started before that file is first loaded, so
    /// that no change between the two is missed; must be called within a Tokio runtime.
    #[must_use]
    pub fn start(config: PathBuf, settings: WatchSettings) -> Self {
        let (changed, changes) = mpsc::channel(1);
        let (trigger, forced) = mpsc::channel(1);
        let (sender, following) = watch::channel(Following::default());
        let known = Fingerprint::of(&config, &[]);
        let task = tokio::spawn(run(Job { config, settings, known, changed, forced, following }));
        Self { changes, trigger: ReloadTrigger(trigger), following: sender, task }
    }

    /// A configuration was loaded: [`super::Checked::hash`] and [`super::Checked::referenced`], whose files are followed
    /// too. When the files hold something else by now, that is told as a change, whatever was seen before.
    pub fn loaded(&self, hash: &Arc<str>, referenced: Referenced) {
        self.following.send_replace(Following { referenced, loaded: Some(hash.clone()) });
    }

    /// A configuration was refused: its hash, and files to follow beside those followed so far, for its mend may be in
    /// one of them.
    pub fn refused(&self, hash: Option<&Arc<str>>, referenced: &Referenced) {
        self.following.send_modify(|following| {
            following.referenced.extend(referenced.clone());
            following.loaded = hash.cloned();
        });
    }

    /// The handle that asks for a reload.
    #[must_use]
    pub fn trigger(&self) -> ReloadTrigger {
        self.trigger.clone()
    }

    /// Waits until the configuration should be loaded again. `false` means that nothing is watched any more.
    pub async fn changed(&mut self) -> bool {
        self.changes.recv().await.is_some()
    }
}

impl Drop for ConfigWatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Job {
    config: PathBuf,
    settings: WatchSettings,
    known: Fingerprint,
    changed: mpsc::Sender<()>,
    forced: mpsc::Receiver<()>,
    following: watch::Receiver<Following>,
}

async fn run(mut job: Job) {
    let (event, mut events) = mpsc::channel(1);
    let mut system = system_events(event);
    let mut poll = tokio::time::interval_at(Instant::now() + job.settings.poll, job.settings.poll);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watched = BTreeSet::new();
    loop {
        if let Some(system) = &mut system {
            for gone in watched.difference(&job.known.directories) {
                let _gone_already = system.unwatch(gone);
            }
            // Watching again is how a directory that was made anew is found; one that is absent waits for the poll.
            let stand = job.known.directories.iter().filter(|directory| watch_directory(system, directory));
            watched = stand.cloned().collect::<BTreeSet<PathBuf>>();
        }
        let mut must_reload = false;
        tokio::select! {
            Some(()) = events.recv() => {
                tokio::time::sleep(job.settings.debounce).await;
                while events.try_recv().is_ok() {}
            }
            asked = job.forced.recv() => match asked {
                Some(()) => must_reload = true,
                None => return,
            },
            followed = job.following.changed() => {
                if followed.is_err() {
                    return;
                }
                let Following { referenced, loaded } = job.following.borrow_and_update().clone();
                job.known.follow(&job.config, referenced);
                if !job.known.is_what_was_loaded(loaded.as_deref()) {
                    // The files were changed between the look and the load, and may have been changed back since: only
                    // another load tells what is in force.
                    job.known.configuration.clear();
                }
            }
            _ = poll.tick() => {}
        }
        let referenced: Vec<PathBuf> = job.known.referenced.keys().cloned().collect();
        let now = settled(|| look(job.config.clone(), referenced.clone()), job.settings.look).await;
        if now != job.known || must_reload {
            job.known = now;
            // A change that waits to be taken stands for this one too.
            let _already_told = job.changed.try_send(());
        }
    }
}

/// Looks until two looks in a row see the same: a file that is being written is not read halfway.
async fn settled<L: Future<Output = Fingerprint>>(mut look: impl FnMut() -> L, pause: Duration) -> Fingerprint {
    let mut seen = look().await;
    for _ in 0..MOST_LOOKS {
        tokio::time::sleep(pause).await;
        let again = look().await;
        if again == seen {
            break;
        }
        seen = again;
    }
    seen
}

async fn look(config: PathBuf, referenced: Vec<PathBuf>) -> Fingerprint {
    let looked = tokio::task::spawn_blocking(move || Fingerprint::of(&config, &referenced)).await;
    looked.unwrap_or_default()
}

fn system_events(event: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |found: notify::Result<notify::Event>| {
        // Reading a file is an event too, and looking reads.
        let is_read = found.as_ref().is_ok_and(|found| {
            matches!(found.kind, EventKind::Access(kind) if !matches!(kind, notify::event::AccessKind::Close(_)))
        });
        if !is_read {
            let _already_told = event.try_send(());
        }
    });
    watcher.inspect_err(|error| tracing::warn!(%error, "no file events: configuration is looked at now and then")).ok()
}

fn watch_directory(system: &mut notify::RecommendedWatcher, directory: &Path) -> bool {
    system.watch(directory, RecursiveMode::NonRecursive).is_ok()
}

/// What the files hold. Files that cannot be read have a fingerprint too, so that their return is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fingerprint {
    configuration: Vec<u8>,
    /// Hash of the same files as a load counts it.
    hash: Arc<str>,
    referenced: Referenced,
    /// Where these files lie, to be watched.
    directories: BTreeSet<PathBuf>,
}

impl Fingerprint {
    fn of(config: &Path, referenced: &[PathBuf]) -> Self {
        let [_, policies] = load::directories(config);
        let mut files = vec![config.to_owned()];
        files.extend(load::policy_files(&policies).unwrap_or_default());
        let each = |file: &PathBuf| (file.clone(), load::contents(std::slice::from_ref(file)));
        let hash = load::hash_of(config);
        let mut seen = Self { configuration: load::contents(&files), hash, ..Self::default() };
        seen.follow(config, referenced.iter().map(each).collect());
        seen
    }

    /// Follows the files of a load, as it read them: what differs from that on disk is still to be told.
    fn follow(&mut self, config: &Path, referenced: Referenced) {
        let of_files = referenced.keys().map(|file| load::directory_of(file));
        self.directories = load::directories(config).into_iter().chain(of_files).collect();
        self.referenced = referenced;
    }

    /// Whether a load found what this look saw; nothing loaded yet contradicts nothing.
    fn is_what_was_loaded(&self, loaded: Option<&str>) -> bool {
        loaded.is_none_or(|loaded| *loaded == *self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: WatchSettings = WatchSettings {
        debounce: Duration::from_millis(20),
        look: Duration::from_millis(10),
        poll: Duration::from_secs(3600),
    };

    fn world() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("policies")).unwrap();
        let config = directory.path().join("doorward.yaml");
        std::fs::write(&config, "listeners: {}\n").unwrap();
        std::fs::write(directory.path().join("policies/a.yaml"), "routes: {}\n").unwrap();
        (directory, config)
    }

    async fn told(watcher: &mut ConfigWatcher) {
        let told = tokio::time::timeout(Duration::from_secs(30), watcher.changed()).await;
        assert!(told.expect("a change must be told"));
    }

    #[tokio::test]
    async fn a_changed_file_is_told_again_and_again() {
        let (directory, config) = world();
        let mut watcher = ConfigWatcher::start(config.clone(), QUICK);
        std::fs::write(&config, "listeners: { }\n").unwrap();
        // Events may be missed before the first watch stands; then a look finds the change.
        watcher.trigger().reload();
        told(&mut watcher).await;
        for round in 0..3 {
            std::fs::write(directory.path().join("policies/a.yaml"), format!("# {round}\n")).unwrap();
            told(&mut watcher).await;
        }
    }

    #[tokio::test]
    async fn a_change_is_found_without_any_event() {
        let (directory, config) = world();
        let look_often = WatchSettings { poll: Duration::from_millis(20), ..QUICK };
        let mut watcher = ConfigWatcher::start(config, look_often);
        std::fs::write(directory.path().join("policies/new.cedar"), "permit(principal, action, resource);\n").unwrap();
        told(&mut watcher).await;
    }

    #[tokio::test]
    async fn a_reload_can_be_asked_for_without_a_change() {
        let (_directory, config) = world();
        let mut watcher = ConfigWatcher::start(config, QUICK);
        watcher.trigger().reload();
        told(&mut watcher).await;
    }

    #[tokio::test]
    #[cfg(unix)]
    async fn a_swapped_link_of_a_config_map_is_told() {
        use std::os::unix::fs::symlink;
        let (directory, config) = world();
        let policies = directory.path().join("policies");
        std::fs::remove_file(policies.join("a.yaml")).unwrap();
        for version in ["..one", "..two"] {
            std::fs::create_dir(policies.join(version)).unwrap();
            std::fs::write(policies.join(version).join("a.yaml"), format!("# {version}\n")).unwrap();
        }
        symlink("..one", policies.join("..data")).unwrap();
        symlink("..data/a.yaml", policies.join("a.yaml")).unwrap();
        let look_often = WatchSettings { poll: Duration::from_millis(200), ..QUICK };
        let mut watcher = ConfigWatcher::start(config, look_often);
        symlink("..two", policies.join("..new")).unwrap();
        std::fs::rename(policies.join("..new"), policies.join("..data")).unwrap();
        told(&mut watcher).await;
    }

    #[tokio::test]
    async fn what_was_loaded_between_two_looks_and_changed_back_is_told() {
        let (_directory, config) = world();
        let mut watcher = ConfigWatcher::start(config, QUICK);
        // What the load found is gone again: every look sees the same, and yet it is not what is in force.
        watcher.loaded(&"another".into(), Referenced::new());
        told(&mut watcher).await;
        watcher.refused(Some(&"a third".into()), &Referenced::new());
        told(&mut watcher).await;
    }

    #[test]
    fn a_look_and_a_load_count_the_same_files() {
        let (directory, config) = world();
        let policies = directory.path().join("policies");
        let hash = || crate::config::compile::judge(&config).unwrap_err().hash().unwrap().clone();
        assert_eq!(Fingerprint::of(&config, &[]).hash, hash());
        std::fs::write(policies.join("b.cedar"), "permit(").unwrap();
        std::fs::write(policies.join("c.yaml"), [0xff]).unwrap();
        std::fs::write(policies.join("d.txt"), "not read").unwrap();
        let seen = Fingerprint::of(&config, &[]);
        assert_eq!(seen.hash, hash());
        assert!(seen.is_what_was_loaded(Some(&hash())) && seen.is_what_was_loaded(None));
        std::fs::write(&config, "listeners: { }\n").unwrap();
        assert!(!seen.is_what_was_loaded(Some(&hash())));
    }

    #[tokio::test]
    async fn a_certificate_that_is_followed_is_told() {
        let (directory, config) = world();
        let certificate = directory.path().join("tls.pem");
        std::fs::write(&certificate, "old").unwrap();
        let known = Fingerprint::of(&config, std::slice::from_ref(&certificate));
        std::fs::write(&certificate, "new").unwrap();
        let now = Fingerprint::of(&config, std::slice::from_ref(&certificate));
        assert_eq!(known.configuration, now.configuration);
        assert_ne!(known.referenced, now.referenced);
        std::fs::remove_file(&certificate).unwrap();
        assert_ne!(now, Fingerprint::of(&config, std::slice::from_ref(&certificate)));
    }

    #[tokio::test]
    async fn a_file_that_changes_between_its_load_and_its_following_is_told() {
        let (directory, config) = world();
        let [one, other] = ["a.pem", "b.pem"].map(|name| directory.path().join(name));
        for file in [&one, &other] {
            std::fs::write(file, "as it was loaded").unwrap();
        }
        let loaded = Fingerprint::of(&config, &[one.clone(), other.clone()]);
        for file in [one, other] {
            let mut watcher = ConfigWatcher::start(config.clone(), QUICK);
            std::fs::write(&file, "changed since").unwrap();
            watcher.loaded(&loaded.hash, loaded.referenced.clone());
            told(&mut watcher).await;
            std::fs::write(&file, "as it was loaded").unwrap();
        }
    }

    #[test]
    fn a_file_written_again_unchanged_says_nothing() {
        let (directory, config) = world();
        let known = Fingerprint::of(&config, &[]);
        std::fs::write(&config, "listeners: {}\n").unwrap();
        std::fs::write(directory.path().join("policies/.swap"), "an editor's own\n").unwrap();
        assert_eq!(known, Fingerprint::of(&config, &[]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_being_written_is_waited_for() {
        let seen = |content: u8| Fingerprint { configuration: vec![content], ..Fingerprint::default() };
        let mut looks = [1, 2, 3, 3, 4].into_iter();
        let settled = settled(|| std::future::ready(seen(looks.next().unwrap())), Duration::from_millis(100)).await;
        assert_eq!(settled, seen(3));
        let mut restless = 0..=u8::MAX;
        super::settled(|| std::future::ready(seen(restless.next().unwrap())), Duration::from_millis(100)).await;
        assert!(restless.next().is_some(), "waiting has an end");
    }
}
