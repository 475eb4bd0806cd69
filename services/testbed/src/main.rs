//! The command `echotune-testbed`.

#[cfg(target_os = "linux")]
mod cli;
#[cfg(all(target_os = "linux", feature = "drive"))]
mod faults;
#[cfg(all(target_os = "linux", feature = "drive"))]
mod serve;

#[cfg(target_os = "linux")]
#[tokio::main]
async fn main() -> std::process::ExitCode {
    cli::run().await
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("the testbed runs on Linux alone");
    std::process::ExitCode::FAILURE
}
