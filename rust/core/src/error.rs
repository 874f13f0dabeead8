//! One error enum for the kernel; every message is one line and names what is at fault.

/// Which part of the input is at fault; bindings map it to their own error classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The router file.
    Artifact,
    /// An embedding handed in for routing.
    Data,
    /// What the request asked for.
    Policy,
    /// What this process was told to run with.
    Environment,
}

/// Everything that can go wrong in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are no well-formed safetensors container.
    #[error("not a readable safetensors file: {0}")]
    Container(String),
    /// The container holds no `centroute` metadata.
    #[error("safetensors file without the metadata key 'centroute': not a router")]
    NoMetadata,
    /// The metadata is not the JSON that a router carries.
    #[error("router metadata: {0}")]
    Metadata(String),
    /// The file was written by another generation of the format.
    #[error("format version {found} is not readable here (this build reads version {supported})")]
    FormatVersion {
        /// Version in the file.
        found: u64,
        /// Version that this build reads.
        supported: u64,
    },
    /// A tensor of the format is not in the file.
    #[error("tensor '{0}' is missing")]
    MissingTensor(&'static str),
    /// A tensor's dtype or shape is not what the format says.
    #[error("tensor '{name}': got {got}, wanted {wanted}")]
    TensorLayout {
        /// Tensor name.
        name: &'static str,
        /// Dtype and shape in the file.
        got: String,
        /// Dtype and shape of the format.
        wanted: String,
    },
    /// A value in a tensor is outside its range.
    #[error("tensor '{name}' at {position}: {value} is not {wanted}")]
    TensorValue {
        /// Tensor name.
        name: &'static str,
        /// Index of the value.
        position: String,
        /// The offending value.
        value: f32,
        /// The range that holds.
        wanted: &'static str,
    },
    /// The stored digest differs from the one computed over the file.
    #[error("digest mismatch: the file says {stored}, its contents give {computed}; it was altered or damaged")]
    Digest {
        /// Digest in the metadata.
        stored: String,
        /// Digest of the contents.
        computed: String,
    },
    /// A query or batch has another width than the centroids.
    #[error("embedding dim: got {got}, the router wants {wanted}")]
    Dim {
        /// Width handed in.
        got: usize,
        /// Width of the centroids.
        wanted: usize,
    },
    /// A row cannot be routed.
    #[error("embedding row {row}: {what}")]
    Row {
        /// Row number from zero.
        row: usize,
        /// NaN or infinity, or zero norm.
        what: &'static str,
    },
    /// A policy's number is outside its range.
    #[error("policy {field}={value}: wanted {wanted}")]
    PolicyValue {
        /// Field of the policy.
        field: &'static str,
        /// The offending value.
        value: f64,
        /// The range that holds.
        wanted: &'static str,
    },
    /// A number of one row of a batch is outside its range.
    #[error("policy {field} of row {row}: {value} is out of range")]
    RowNumber {
        /// Field of the policy.
        field: &'static str,
        /// Row number from zero.
        row: usize,
        /// The offending value.
        value: f32,
    },
    /// More than one objective was given.
    #[error("policy: {0} and {1} exclude each other; give one objective")]
    PolicyConflict(&'static str, &'static str),
    /// A policy names a model that the pool lacks.
    #[error("policy {field}: unknown model '{name}' (the pool has {pool})")]
    UnknownModel {
        /// Field of the policy.
        field: &'static str,
        /// The unknown name.
        name: String,
        /// Names of the pool.
        pool: String,
    },
    /// The objective or limit needs a cost that is not known.
    #[error(
        "policy {field} needs the cost of every candidate, and that of {models} is unknown; deny it or use a policy without cost"
    )]
    CostUnknown {
        /// Field of the policy.
        field: &'static str,
        /// Candidates without a cost.
        models: String,
    },
    /// A mean cost cannot be translated into a willingness to pay.
    #[error("policy max_mean_cost={value}: {why}")]
    Budget {
        /// Requested mean cost in USD.
        value: f64,
        /// Why it cannot be met.
        why: String,
    },
    /// A strong and a weak model between which nothing can be weighed.
    #[error("policy strong, weak, strong_share: {0}")]
    StrongWeak(String),
    /// A requirement on the context length holds no number.
    #[error("policy require: {0:?}, wanted context>=N with a whole number N")]
    Requirement(String),
    /// The limits left no model.
    #[error("no model is left: {0}")]
    NoCandidate(String),
    /// A filter that is not one value an owner.
    #[error("filter: got {got} values for {wanted} owners")]
    FilterLength {
        /// Values handed in.
        got: usize,
        /// Number of owners.
        wanted: usize,
    },
    /// A row belongs to an owner that there is not.
    #[error("owner of row {row}: {owner} is not below {n_owners}")]
    Owner {
        /// Row number from zero.
        row: usize,
        /// The number of the owner.
        owner: u32,
        /// Numbers that there may be.
        n_owners: usize,
    },
    /// A row that was removed or never there.
    #[error("row {row}: there is none of this number among {n_rows}, or it was removed")]
    NoRow {
        /// The number.
        row: usize,
        /// Rows there are, the removed ones among them.
        n_rows: usize,
    },
    /// An instruction set was asked for that this machine lacks or nobody knows.
    #[error("CENTROUTE_SIMD={wanted}: this machine has {available}")]
    InstructionSet {
        /// The name asked for.
        wanted: String,
        /// Names of those that are there.
        available: String,
    },
}

impl Error {
    /// The part of the input that is at fault.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Container(_)
            | Self::NoMetadata
            | Self::Metadata(_)
            | Self::FormatVersion { .. }
            | Self::MissingTensor(_)
            | Self::TensorLayout { .. }
            | Self::TensorValue { .. }
            | Self::Digest { .. } => ErrorKind::Artifact,
            Self::Dim { .. }
            | Self::Row { .. }
            | Self::FilterLength { .. }
            | Self::Owner { .. }
            | Self::NoRow { .. } => ErrorKind::Data,
            Self::PolicyValue { .. }
            | Self::RowNumber { .. }
            | Self::PolicyConflict(..)
            | Self::UnknownModel { .. }
            | Self::CostUnknown { .. }
            | Self::Budget { .. }
            | Self::StrongWeak(_)
            | Self::Requirement(_)
            | Self::NoCandidate(_) => ErrorKind::Policy,
            Self::InstructionSet { .. } => ErrorKind::Environment,
        }
    }
}
