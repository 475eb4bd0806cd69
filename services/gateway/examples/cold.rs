//! What the gateway adds to the start of a server that is a program: from nothing to the first answer, by itself and
//! by way of the gateway, in turns.
//!
//! `cargo build --release -p echotune-gateway --examples && cargo run --release -p echotune-gateway --example cold --
//! [STARTS] [COMMAND ARGS…]`
//!
//! One line of JSON. Without a command it is the example `stdio_server`, whose tool `echo` is called; any other must
//! have a tool that is named in the variable `TOOL`, and take no arguments for it. By itself it is spoken to in the revision
//! 2025-11-25, and so it is by the gateway.

use std::{process::Stdio, time::Duration};

use echotune_gateway::{EraChoice, Limits, ProcessConfig, Reach, ServerConfig};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
    time::Instant,
};

mod stand;
use stand::{Outcome, gateway, http, open, percentile, within};

/// From the start of a program to the answer of its first call.
async fn by_itself(command: &str, args: &[String], tool: &str) -> Outcome<Duration> {
    let begun = Instant::now();
    let mut command = Command::new(command);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let (mut input, output) = (child.stdin.take().ok_or("no input")?, child.stdout.take().ok_or("no output")?);
    let mut lines = BufReader::new(output).lines();
    let messages = [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25",
            "capabilities": {}, "clientInfo": {"name": "cold", "version": "1"}}}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": tool, "arguments": {}}}),
    ];
    for message in messages {
        input.write_all(format!("{message}\n").as_bytes()).await?;
        let Some(id) = message.get("id") else { continue };
        loop {
            let line = lines.next_line().await?.ok_or("it ended")?;
            let answer: Value = serde_json::from_str(&line).unwrap_or_default();
            if answer.get("id") == Some(id) {
                break;
            }
        }
    }
    let took = begun.elapsed();
    drop(input);
    let _status = child.wait().await?;
    Ok(took)
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let starts: usize = arguments.next().map_or(Ok(30), |text| text.parse())?;
    let mut command: Vec<String> = arguments.collect();
    if command.is_empty() {
        let own = std::env::current_exe()?;
        let program = own.parent().ok_or("no folder")?.join("stdio_server");
        command = vec![program.display().to_string(), "cold".to_owned(), "legacy".to_owned()];
    }
    let tool = std::env::var("TOOL").unwrap_or_else(|_| "echo".to_owned());
    let (program, args) = command.split_first().ok_or("no command")?;
    let process = ProcessConfig { children: starts + 8, ..ProcessConfig::new(program, args) };
    let config = ServerConfig {
        era: EraChoice::Legacy,
        lists_kept: Duration::from_secs(3_600),
        ..ServerConfig::new("cold", Reach::Process(process))
    };
    let stand = gateway(vec![config], Limits::default()).await?;
    let http = http();
    stand::ready(&http, &stand.url, &tool).await?;
    let (mut alone, mut led) = (Vec::new(), Vec::new());
    for at in 0..starts {
        alone.push(by_itself(program, args, &tool).await?);
        // A session has a child of its own, which is started by its first call.
        let session = open(&http, &stand.url).await?;
        let begun = Instant::now();
        let call = json!({"jsonrpc": "2.0", "id": at + 2, "method": "tools/call",
            "params": {"name": tool, "arguments": {}}});
        let answer = within(&http, &stand.url, &session, &call).await?;
        led.push(begun.elapsed());
        if answer["result"]["isError"] == true || !answer["result"].is_object() {
            return Err(answer.to_string().into());
        }
    }
    alone.sort_unstable();
    led.sort_unstable();
    let at = |permille| (percentile(&alone, permille), percentile(&led, permille));
    let ((alone_50, led_50), (alone_90, led_90)) = (at(500), at(900));
    println!(
        "{}",
        json!({
            "starts": starts, "by_itself_us": {"p50": alone_50, "p90": alone_90},
            "by_gateway_us": {"p50": led_50, "p90": led_90},
            "added_us": {"p50": led_50.saturating_sub(alone_50), "p90": led_90.saturating_sub(alone_90)},
        })
    );
    stand.stop.cancel();
    stand.gateway.close(Duration::from_secs(10)).await;
    Ok(())
}
