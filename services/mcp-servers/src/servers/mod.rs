//! The servers and their tools. Tool names are unique across servers.

mod catalogue;
mod experiments;
mod listening;
mod listens;
mod playlists;
mod recommendations;
mod status;
mod words;

use crate::tool::Tool;

/// A server that can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerSummary {
    /// Name in addresses and on the command line.
    pub name: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// What it is for, in one or two sentences.
    pub description: &'static str,
}

/// Every server, in the order of listings.
pub const SERVERS: &[ServerSummary] = &[
    ServerSummary {
        name: "listening",
        title: "Listening",
        description: "What a listener has played: recent listens, most played items, a summary of a time; and noting a new listen.",
    },
    ServerSummary {
        name: "recommendations",
        title: "Recommendations",
        description: "What a listener may like, with reasons that sum exactly to the score; what-if lists, similar items, what is played most now.",
    },
    ServerSummary {
        name: "playlists",
        title: "Playlists",
        description: "A listener's playlists: make, read, list, delete, and export as XSPF, JSPF or M3U8.",
    },
    ServerSummary {
        name: "catalogue",
        title: "Catalogue",
        description: "Artists and tracks that listeners know: find them by name, read one.",
    },
    ServerSummary {
        name: "experiments",
        title: "Experiments",
        description: "What listeners made of what each model showed, and what experiments on lists have found. For the operator.",
    },
    ServerSummary {
        name: "status",
        title: "Status",
        description: "What runs and how much it holds, and the spans of one trace.",
    },
];

/// The tools of a server; none when no server has the name.
pub(crate) fn tools(server: &str) -> Vec<Tool> {
    match server {
        "listening" => listening::tools(),
        "recommendations" => recommendations::tools(),
        "playlists" => playlists::tools(),
        "catalogue" => catalogue::tools(),
        "experiments" => experiments::tools(),
        "status" => status::tools(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_server_has_tools_and_every_tool_one_name() {
        let mut names = BTreeSet::new();
        for server in SERVERS {
            let tools = tools(server.name);
            assert!(!tools.is_empty(), "{}", server.name);
            for tool in tools {
                assert!(names.insert(tool.listed.name.clone()), "{} twice", tool.listed.name);
            }
        }
        assert!(tools("nothing").is_empty());
    }
}
