//! A stream of events as a client reads it.

use reqwest::{Method, Response};
use serde_json::Value;

use super::{Api, soon};

/// What is between two blank lines.
#[derive(Clone, Debug, Default)]
pub struct Block {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: Option<Value>,
    pub comment: Option<String>,
}

/// An open stream.
pub struct Follower {
    response: Response,
    text: String,
}

impl Api {
    /// Opens a stream of events, which must be answered with 200.
    pub async fn follow(&self, query: &str) -> Follower {
        self.follow_from(query, None).await
    }

    /// The same behind an event.
    pub async fn follow_from(&self, query: &str, seen: Option<&str>) -> Follower {
        let mut request = self.request(Method::GET, &format!("/v1/events{query}"));
        if let Some(id) = seen {
            request = request.header("last-event-id", id);
        }
        let response = soon("a stream begins", request.send()).await.unwrap();
        assert_eq!(response.status(), 200, "{query}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Follower { response, text: String::new() }
    }
}

impl Follower {
    /// The next block; none at the end of the stream.
    pub async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (read(block), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let piece = soon("the stream says something", self.response.chunk()).await.expect("it ends cleanly")?;
            self.text.push_str(std::str::from_utf8(&piece).expect("events are sent whole"));
        }
    }

    /// The next event.
    pub async fn next(&mut self) -> Value {
        loop {
            let block = self.block().await.expect("the stream goes on");
            if let Some(data) = block.data {
                assert_eq!(block.id.as_deref(), data["id"].as_str(), "{data}");
                assert_eq!(block.event.as_deref(), data["kind"].as_str(), "{data}");
                return data;
            }
        }
    }

    /// The next events, as many.
    pub async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await);
        }
        events
    }

    /// Reads until an event of this kind, and returns it.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next().await;
            if event["kind"] == kind {
                return event;
            }
        }
    }

    /// What is left of a stream that ends.
    pub async fn rest(mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(block) = self.block().await {
            events.extend(block.data);
        }
        events
    }
}

fn read(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "id" => block.id = Some(value),
            "event" => block.event = Some(value),
            "data" => block.data = Some(serde_json::from_str(&value).expect("data is one line of JSON")),
            "" => block.comment = Some(value),
            "retry" => {}
            other => panic!("no such field: {other}"),
        }
    }
    block
}

/// The kinds of events, in order.
pub fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["kind"].as_str().unwrap()).collect()
}
