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
