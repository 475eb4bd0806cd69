//! Measures the models: runs the engine's evaluator, optimised.

/// `words` go to `echotune-eval`, such as `hetrec --data FOLDER`.
pub(crate) fn run(words: &[&str]) -> anyhow::Result<()> {
    let mut arguments = vec![
        "run",
        "--quiet",
        "--release",
        "--locked",
        "--package",
        "echotune-engine",
        "--features",
        "eval",
        "--bin",
        "echotune-eval",
        "--",
    ];
    arguments.extend_from_slice(words);
    crate::cargo(&arguments)
}

/// Lints and tests the evaluator.
pub(crate) fn check() -> anyhow::Result<()> {
    const OF: [&str; 5] = ["--package", "echotune-engine", "--features", "eval", "--locked"];
    crate::cargo(&[&["clippy", "--all-targets"], &OF[..], &["--", "-D", "warnings"]].concat())?;
    crate::cargo(&[&["test", "--bin", "echotune-eval", "--test", "eval"], &OF[..]].concat())
}
