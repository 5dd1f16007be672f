//! Deliveries and events as text for people: columns that line up, nothing that a terminal would obey.
//!
//! Names of events come from outside. Whatever is not printable is shown escaped, so that an event type cannot move the
//! cursor of the person who looks at it.

use serde_json::Value;

/// Deliveries, one a line.
pub(super) fn deliveries(deliveries: &[Value]) -> String {
    let head = [
        "id",
        "route",
        "destination",
        "state",
        "attempts",
        "accepted",
        "next",
        "type",
        "event id",
    ];
    let names = [
        "id",
        "route",
        "destination",
        "state",
        "attempts",
        "accepted_at",
        "next_at",
        "event_type",
        "event_id",
    ];
    let row = |delivery: &Value| names.iter().map(|name| cell(&delivery[*name])).collect();
    let rows: Vec<Vec<String>> = deliveries.iter().map(row).collect();
    match rows.is_empty() {
        true => "no deliveries".to_owned(),
        false => lines(&head, &rows),
    }
}

/// How much waits where.
pub(super) fn queue(queue: &Value) -> String {
    let head = ["route", "destination", "state", "deliveries", "oldest, s"];
    let names = ["route", "destination", "state", "deliveries", "oldest_seconds"];
    let lanes = queue["lanes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |lane: &Value| names.iter().map(|name| cell(&lane[*name])).collect();
    let rows: Vec<Vec<String>> = lanes.iter().map(row).collect();
    format!("queue: {}\n{}", cell(&queue["health"]), lines(&head, &rows))
}

/// One event: what it is, where it goes, what was tried.
pub(super) fn event(event: &Value) -> String {
    let mut text = String::new();
    for name in [
        "id",
        "route",
        "provider",
        "verified",
        "event_id",
        "event_type",
        "method",
        "target",
        "client",
        "body_bytes",
    ] {
        text.push_str(&format!("{name:<12} {}\n", cell(&event[name])));
    }
    text.push_str("\nheaders\n");
    for header in items(&event["headers"]) {
        text.push_str(&format!("  {}: {}\n", cell(&header[0]), cell(&header[1])));
    }
    for delivery in items(&event["deliveries"]) {
        text.push_str(&format!(
            "\nto {}: {} after {} attempts\n",
            cell(&delivery["destination"]),
            cell(&delivery["state"]),
            cell(&delivery["attempts"])
        ));
        let head = ["at", "took, ms", "status", "error"];
        let names = ["at", "took_ms", "status", "error"];
        let row = |attempt: &Value| names.iter().map(|name| cell(&attempt[*name])).collect();
        let rows: Vec<Vec<String>> = items(&delivery["history"]).iter().map(row).collect();
        if !rows.is_empty() {
            text.push_str(&lines(&head, &rows));
            text.push('\n');
        }
    }
    if let Some(body) = event["body_base64"].as_str() {
        text.push_str(&format!("\nbody in base64\n{body}\n"));
    }
    text.trim_end().to_owned()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text
            .escape_debug()
            .to_string()
            .replace("\\\"", "\"")
            .replace("\\'", "'"),
        other => other.to_string(),
    }
}

fn lines(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        let titled = head.get(column).map_or(0, |title| title.len());
        cells.chain([titled]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}", width = *width))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut text = vec![line(&mut head.iter().copied())];
    text.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    text.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_and_obey_nobody() {
        // An event type with an escape sequence would rewrite what the operator sees.
        let rows = [
            json!({ "id": 7, "route": "billing", "destination": "app", "state": "dead", "attempts": 9,
                    "accepted_at": "t", "next_at": null, "event_type": "\u{1b}[2J", "event_id": "evt \"1\"" }),
        ];
        let expected = "id  route    destination  state  attempts  accepted  next  type       event id\n\
                        7   billing  app          dead   9         t         -     \\u{1b}[2J  evt \"1\"";
        assert_eq!(deliveries(&rows), expected);
        assert_eq!(deliveries(&[]), "no deliveries");
    }
}
