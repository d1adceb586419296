//! The slots of the operators: the named inputs of a task.
//!
//! Knows their names, not the inputs in them ([`super::graph::Binding`]).

use std::fmt;

/// Defines [`Slot`] with one line a slot: no list can forget one.
macro_rules! slots {
    ($($(#[$documentation:meta])* $slot:ident = $name:literal),+ $(,)?) => {
        /// A named input of an operator.
        ///
        /// A slot filled by the user has the name of its key in the pipeline file. Names are part
        /// of every recipe: another name is another fingerprint.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Slot {
            $($(#[$documentation])* $slot,)+
        }

        impl Slot {
            /// All slots of all operators.
            pub const ALL: &[Self] = &[$(Self::$slot),+];

            /// The name in the pipeline file and in recipes.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$slot => $name,)+
                }
            }
        }
    };
}

slots! {
    /// The prompts to select from, to answer, or of the scored responses.
    Prompts = "prompts",
    /// The pool to rank prompts by, or to pair responses from.
    Pool = "pool",
    /// The selection of the previous iteration.
    Previous = "previous",
    /// The selection to choose among.
    Within = "within",
    /// The model to sample from. For `score`: the model with the chat template for a server.
    Policy = "policy",
    /// The selected prompts.
    Selection = "selection",
    /// Responses to score, to merge, to train on, or to evaluate.
    Responses = "responses",
    /// The reward.
    Reward = "reward",
    /// Rewards named by the reward, one binding each. Filled by the unrolling.
    Rewards = "rewards",
    /// The rewards of this iteration's responses.
    Fresh = "fresh",
    /// The pool to carry responses over from.
    Carried = "carried",
    /// The model to start training from.
    From = "from",
    /// The reference model of the loss.
    Reference = "reference",
    /// The pairs to train on.
    Pairs = "pairs",
    /// The model to compare with.
    Baseline = "baseline",
    /// The responses of the baseline. Filled by the unrolling.
    BaselineResponses = "baseline_responses",
    /// The rewards of the baseline's responses. Filled by the unrolling.
    BaselineRewards = "baseline_rewards",
    /// The model for the mean NLL of an evaluation.
    Initial = "initial",
    /// The table of texts of a baseline. Filled by the unrolling.
    Texts = "texts",
    /// The demonstrations to imitate.
    Demonstrations = "demonstrations",
    /// The preferences to learn.
    Preferences = "preferences",
    /// The preferences to test on. As a setting of the same name it is a share of the prompts.
    HeldOut = "held_out",
    /// The reward model to test. Filled by the unrolling.
    Model = "model",
    /// The items of a benchmark's tasks, one binding a task, in the order of their names.
    Items = "items",
    /// The examples of a benchmark's tasks, one binding for each task that has some.
    Examples = "examples",
    /// The answers to grade. Filled by the unrolling.
    Answers = "answers",
    /// The graded answers of a policy. Filled by the unrolling.
    Graded = "graded",
    /// The graded answers of the baseline. Filled by the unrolling.
    BaselineGraded = "baseline_graded",
    /// The rewards of generated answers, one binding a metric. Filled by the unrolling.
    AnswerRewards = "answer_rewards",
    /// The tables of a query, one binding each, with the query's name for each table.
    Tables = "tables",
    /// The inputs of a command, one binding each, with the command's name for each input.
    Inputs = "inputs",
}

impl Slot {
    /// The slot of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|slot| slot.name() == name)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::Slot;
    use crate::pipeline::spec::benchmark::answer::Answer;
    use crate::pipeline::spec::benchmark::grade::Grade;
    use crate::pipeline::spec::operator::{Node, Operator};
    use crate::pipeline::tree::Tree;

    /// Every operator of a pipeline file, with every slot filled. Each name begins with `input_`.
    const NODES: [&str; 12] = [
        "select: { prompts: input_a, pool: input_b, previous: input_c, within: input_d, strategy: reward_gain }",
        "generate: { policy: input_a, prompts: input_b, selection: input_c }",
        "score: { responses: input_a, reward: input_b, prompts: input_c }",
        "merge: { fresh: [input_a, input_c], carried: input_b }",
        "pair: { pool: input_a }",
        "train: { from: input_a, reference: input_b, pairs: input_c }",
        "evaluate: { policy: input_a, baseline: input_b, prompts: input_c, reward: input_d, initial: input_e }",
        "sft: { from: input_a, demonstrations: input_b }",
        "reward_model: { from: input_a, preferences: input_b, held_out: input_c }",
        "benchmark: { policy: input_a, baseline: input_b, tasks: { t: { items: input_c, question: q, choices: c, answer: a, \
         few_shot: { count: 1, from: input_d } }, g: { items: input_e, question: q, metrics: { m: { reward: input_f } } } } }",
        "sql: { query: SELECT 1, tables: { t: input_a } }",
        "command: { run: [sh], inputs: { t: input_a }, output: model }",
    ];

    fn operator(text: &str) -> Operator {
        let tree = Tree::read(text).unwrap();
        Node::deserialize(&tree).unwrap().operator
    }

    #[test]
    fn no_slot_of_an_operator_is_a_setting() {
        for text in NODES {
            let operator = operator(text);
            let settings = operator.settings();
            for (slot, name, _) in operator.slots() {
                assert!(!settings.contains_key(slot.name()), "{slot} of {} is a setting", operator.name());
                assert!(name.value.starts_with("input_"), "{text}");
            }
            // A slot missing in `slots()` or in the enum leaves the name of its input among the
            // settings.
            let settings = serde_json::to_string(&settings).unwrap();
            assert!(!settings.contains("input_"), "a slot of {} is missing in `Slot`: {settings}", operator.name());
        }
        let filled: usize = NODES.iter().map(|text| text.matches("input_").count()).sum();
        let slots: usize = NODES.iter().map(|text| operator(text).slots().len()).sum();
        assert_eq!(filled, slots + 2, "every slot but the tables of `sql` and the inputs of `command` is in `slots()`");
    }

    #[test]
    fn the_tasks_of_a_benchmark_are_settings_of_its_answers_and_grades() {
        let text = "benchmark: { policy: a, tasks: { t: { items: b, question: q, answer: c, metrics: { m: { sql: '1' } } } } }";
        let Operator::Benchmark(benchmark) = operator(text) else { panic!("{text}") };
        assert!(Operator::Answer(Answer::new(&benchmark)).settings()["questions"]["t"]["question"] == "q");
        assert!(Operator::Grade(Grade::new(&benchmark)).settings()["tasks"]["t"]["metrics"]["m"]["kind"]["sql"] == "1");
    }

    #[test]
    fn a_share_held_out_is_a_setting() {
        let settings = operator("reward_model: { from: a, preferences: b, held_out: 0.2 }").settings();
        assert_eq!(settings.get("held_out"), Some(&serde_json::json!(0.2)));
    }

    #[test]
    fn names_are_unique() {
        for slot in Slot::ALL {
            assert_eq!(Slot::from_name(slot.name()), Some(*slot));
        }
    }
}
