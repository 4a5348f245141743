//! What the nodes log goes into the transcript, so that it says not only what they did but why.

use std::fmt::Write as _;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::kernel::host;
use crate::transcript::Transcript;

/// Takes in what is worth telling, and forgets in which span it was said: the host is enough.
pub struct Logs(pub Transcript);

impl Subscriber for Logs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.is_printed() && *metadata.level() <= Level::INFO && metadata.target().starts_with("starling")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        // Nobody asks which span it is.
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut words = Words::default();
        event.record(&mut words);
        let level = event.metadata().level().as_str().to_lowercase();
        self.0.tell(host::running, || format!("({level}) {}{}", words.message, words.fields));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing into a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            // Names say it.
            "id" | "directory" | "build" | "listen" | "cluster" => Ok(()),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
