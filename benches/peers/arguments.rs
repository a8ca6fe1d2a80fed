//! The command line.

/// The works, by the names that `--only` takes.
pub const WORKS: [&str; 16] = [
    "h1", "h2", "cold", "cold-one", "beyond", "rotating", "16k", "down", "down-h2", "up", "up-h2", "full", "resumed",
    "latency", "memory", "workers",
];

/// What was asked.
#[derive(Default)]
pub struct Arguments {
    /// Short slices and few rounds.
    pub quick: bool,
    only: Vec<String>,
    /// Another build of Doorward.
    pub doorward: Option<String>,
    pub rounds: Option<usize>,
    /// As they were given.
    pub line: String,
}

impl Arguments {
    /// Reads them.
    ///
    /// # Errors
    /// What is not understood.
    pub fn parse(texts: &[&str]) -> Result<Self, String> {
        // Cargo says `--bench` to every benchmark.
        let mut texts = texts.iter().copied().filter(|text| *text != "--bench");
        let mut arguments = Self { line: texts.clone().collect::<Vec<_>>().join(" "), ..Self::default() };
        while let Some(text) = texts.next() {
            let mut value = || texts.next().ok_or(format!("{text} needs a value"));
            match text {
                "--quick" => arguments.quick = true,
                "--only" => arguments.only = value()?.split(',').map(str::to_owned).collect(),
                "--doorward" => arguments.doorward = Some(value()?.to_owned()),
                "--rounds" => {
                    let rounds = value()?.parse().ok().filter(|rounds| *rounds > 0);
                    arguments.rounds = Some(rounds.ok_or("--rounds takes a number")?);
                }
                _ => return Err(format!("{text} is no argument: --quick, --only, --doorward or --rounds")),
            }
        }
        if let Some(unknown) = arguments.only.iter().find(|name| !WORKS.contains(&name.as_str())) {
            return Err(format!("{unknown} is no work: {}", WORKS.join(", ")));
        }
        Ok(arguments)
    }

    /// Whether this work is to be done.
    pub fn wants(&self, work: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == work)
    }

    /// Whether everything is measured at full length.
    pub fn is_whole(&self) -> bool {
        !self.quick && self.only.is_empty() && self.rounds.is_none()
    }
}
