//! An explanation for people.

use std::fmt::Write;

use relaypool_api::mx_policy::Scope;
use relaypool_api::relay_pool::{PoolMode, ProviderProfiles};

use super::Explanation;
use super::explanation::{ApplyingPolicy, Standing};
use super::mail_hosts::MailHosts;

/// Everything, in the order in which it is decided.
pub fn text(explanation: &Explanation) -> String {
    let mut text = Text::default();
    head(&mut text, explanation);
    policies(&mut text, &explanation.policies);
    settings(&mut text, explanation);
    reply_rules(&mut text, explanation);
    match &explanation.sending_ips {
        Some(standings) => sending_ips(&mut text, standings),
        None => text.title("Sending IPs: not known without a cluster"),
    }
    text.0
}

fn head(text: &mut Text, explanation: &Explanation) {
    let mode = match explanation.mode {
        PoolMode::Adaptive => "learns limits from replies (mode Adaptive)",
        PoolMode::Static => "learns nothing (mode Static)",
    };
    let profiles = match explanation.provider_profiles {
        ProviderProfiles::Enabled => "built-in profiles apply",
        ProviderProfiles::Disabled => "without built-in profiles",
    };
    let pool = match &explanation.pool {
        Some(pool) => format!("{pool}: {mode}, {profiles}"),
        None => format!("none; with the defaults a pool {mode}, {profiles}"),
    };
    let mut rows = vec![
        vec!["Domain".to_owned(), explanation.domain.to_string()],
        vec!["Pool".to_owned(), pool],
    ];
    rows.extend(mx_rows(&explanation.mx));
    if let Some(site) = &explanation.site {
        rows.push(vec!["Site".to_owned(), site.clone()]);
    }
    if let Some(lane) = explanation
        .lane
        .as_ref()
        .filter(|lane| Some(*lane) != explanation.site.as_ref())
    {
        rows.push(vec![
            "Lane".to_owned(),
            format!("{lane}: a policy for the domain has a lane of its own"),
        ]);
    }
    text.table("", &rows);
}

fn mx_rows(mx: &MailHosts) -> Vec<Vec<String>> {
    if let Some(problem) = &mx.problem {
        let fate = if problem.is_retried {
            "messages are tried again until their validity is over"
        } else {
            "messages fail at once"
        };
        return vec![
            vec!["MX".to_owned(), format!("none: {}", problem.reason)],
            vec![
                String::new(),
                format!("{fate} ({}); policies by MX hosts do not apply", problem.category),
            ],
        ];
    }
    let hosts = mx.hosts.iter().enumerate().map(|(index, host)| {
        let preference = host.preference.map(|preference| format!("{preference} "));
        let addresses: Vec<String> = host.addresses.iter().map(ToString::to_string).collect();
        let words = format!(
            "{}{} {}",
            preference.unwrap_or_default(),
            host.name,
            addresses.join(" ")
        );
        vec![if index == 0 { "MX" } else { "" }.to_owned(), words]
    });
    hosts.collect()
}

fn policies(text: &mut Text, policies: &[ApplyingPolicy]) {
    if policies.is_empty() {
        return text.title("Policies: none applies");
    }
    text.title("Policies, the strongest first");
    let rows: Vec<Vec<String>> = policies
        .iter()
        .map(|policy| {
            let priority = policy.priority.map(|priority| format!("priority {priority}"));
            let mut words = Vec::new();
            if !policy.decides.is_empty() {
                words.push(format!("decides {}", policy.decides.join(", ")));
            }
            match policy.reply_rules {
                0 => {}
                1 => words.push("has a reply rule".to_owned()),
                rules => words.push(format!("has {rules} reply rules")),
            }
            if words.is_empty() {
                words.push("decides nothing here: stronger ones say it all".to_owned());
            }
            let words = words.join("; ");
            vec![policy.from.to_string(), priority.unwrap_or_default(), words]
        })
        .collect();
    text.table("  ", &rows);
}

fn settings(text: &mut Text, explanation: &Explanation) {
    text.title("Settings");
    let rows: Vec<Vec<String>> = explanation
        .settings
        .iter()
        .map(|setting| {
            let value = setting.value.clone().unwrap_or_else(|| "none".to_owned());
            let scope = setting.scope.map(|scope| match scope {
                Scope::PerIp => " for each sending IP",
                Scope::Pool => " for all sending IPs together",
            });
            let unused = explanation.mode == PoolMode::Static
                && setting.setting.starts_with("adaptive.")
                && setting.value.is_some();
            let unused = if unused { " (not used in mode Static)" } else { "" };
            vec![
                setting.setting.to_owned(),
                format!("{value}{}{unused}", scope.unwrap_or_default()),
                setting.from.to_string(),
            ]
        })
        .collect();
    text.table("  ", &rows);
}

fn reply_rules(text: &mut Text, explanation: &Explanation) {
    if explanation.reply_rules.is_empty() {
        return text.title("Reply rules: none");
    }
    text.title("Reply rules: the first that fits takes the reply");
    let rows: Vec<Vec<String>> = explanation
        .reply_rules
        .iter()
        .map(|rule| vec![rule.when.clone(), rule.action.clone(), rule.from.to_string()])
        .collect();
    text.table("  ", &rows);
}

fn sending_ips(text: &mut Text, standings: &[Standing]) {
    if standings.is_empty() {
        return text.title("Sending IPs: the pool has none");
    }
    text.title("Sending IPs");
    let titles = [
        "NAME",
        "SENDER",
        "STATE",
        "CONNECTIONS",
        "RATE",
        "SENT/S",
        "BINDS",
        "QUEUED",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    rows.extend(standings.iter().map(standing_row));
    text.table("  ", &rows);
    for standing in standings {
        let Some(status) = &standing.status else { continue };
        if let Some(until) = &status.suspended_until {
            text.line(&format!("  {}: suspended until {}", standing.name, until.0));
        }
        if let Some(refusal) = &status.last_refusal {
            let (name, reply) = (&standing.name, refusal.reply.escape_debug());
            text.line(&format!(
                "  {name}: last refusal {}: {reply} ({})",
                refusal.at.0, refusal.category
            ));
        }
    }
}

fn standing_row(standing: &Standing) -> Vec<String> {
    let sender = standing.sender.clone().unwrap_or_else(|| "none yet".to_owned());
    let Some(status) = &standing.status else {
        let state = if standing.suspend {
            "suspended by spec.suspend"
        } else {
            "nothing sent here, or not among the busiest"
        };
        return vec![standing.name.clone(), sender, state.to_owned()];
    };
    let state = if standing.suspend {
        "suspended by spec.suspend".to_owned()
    } else {
        format!("{:?}", status.state)
    };
    let limit = status.connection_limit.map(|limit| format!(" of {limit}"));
    vec![
        standing.name.clone(),
        sender,
        state,
        format!("{}{}", status.connections, limit.unwrap_or_default()),
        status
            .rate_limit
            .map_or_else(|| "none".to_owned(), |rate| rate.to_string()),
        format!("{:.1}", status.delivered_per_second),
        format!("{:?}", status.binds),
        status.queued.to_string(),
    ]
}

/// Lines, as they grow.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        // A String takes everything.
        let _ = writeln!(self.0, "{}", line.trim_end());
    }

    fn title(&mut self, title: &str) {
        self.line("");
        self.line(title);
    }

    /// Columns as wide as their widest cell; the last of a row may be as long as it likes.
    fn table(&mut self, indent: &str, rows: &[Vec<String>]) {
        let width = |column: usize| {
            let cells = rows.iter().filter(|row| column + 1 < row.len());
            cells.map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            self.line(&format!("{indent}{}", cells.join("  ")));
        }
    }
}
