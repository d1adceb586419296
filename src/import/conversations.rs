//! Conversations as an Arrow column: lists of role and content, the fields of TRL and of chat
//! templates.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringBuilder, StructBuilder};
use arrow::datatypes::{DataType, Field, Fields};

use crate::model::Message;

/// The builder of a column of conversations.
pub struct Conversations(ListBuilder<StructBuilder>);

impl Default for Conversations {
    fn default() -> Self {
        let text = |name| Field::new(name, DataType::Utf8, false);
        let message = Fields::from(vec![text("role"), text("content")]);
        let field = Field::new_list_field(DataType::Struct(message.clone()), false);
        Self(ListBuilder::new(StructBuilder::from_fields(message, 0)).with_field(field))
    }
}

impl Conversations {
    /// Adds a row; `None` is null.
    pub fn append(&mut self, messages: Option<&[Message]>) {
        for message in messages.unwrap_or_default() {
            for (index, text) in [&message.role, &message.content].into_iter().enumerate() {
                // `default` made both fields with this type.
                if let Some(texts) = self.0.values().field_builder::<StringBuilder>(index) {
                    texts.append_value(text);
                }
            }
            self.0.values().append(true);
        }
        self.0.append(messages.is_some());
    }

    /// The column.
    pub fn finish(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}
