"""How much of each file is read at most, and how many of each thing it may hold. docs/limits.md gives the reasons.

Together they keep the judgement of any adapter below about 2 s and 200 MB, whatever was made to waste both.
"""

from typing import Final

# Bytes of a file, or of its header.
CONFIG_NBYTES: Final = 2_000_000  # adapter_config.json, and a base's config.json
HEADER_NBYTES: Final = 25_000_000  # of all safetensors files of an adapter together; of each file of a base
INDEX_NBYTES: Final = 25_000_000
TOKENIZER_NBYTES: Final = 50_000_000  # each file of a tokenizer
RECORD_NBYTES: Final = 10_000  # base_fingerprint.json
SETTINGS_NBYTES: Final = 2_000_000  # a policy, and every other TOML file that a user gives
TEXT_NBYTES: Final = 50_000_000  # prompts, general text, a chat template
DATA_NBYTES: Final = 4_000_000_000  # a file of samples, unpacked
CHECKPOINT_NBYTES: Final = 50_000_000_000  # each file of numbers that a training goes on from
METRICS_NBYTES: Final = 500_000_000  # what a training run or a sweep wrote: metrics, reports, state
PICKLE_NBYTES: Final = 10_000_000  # that are looked through
GGUF_HEADER_NBYTES: Final = 200_000_000
HUB_NBYTES: Final = 150_000_000  # that are fetched of a hub for one hf:// path
HUB_LIST_NBYTES: Final = 5_000_000  # a page of a hub's list of files
HUB_PICKLE_NBYTES: Final = 1_000_000  # a pickle on a hub that is fetched to be looked through

# What stands in them.
JSON_VALUES: Final = 1_000_000
MERGE_VALUES: Final = 10_000_000  # of a tokenizer's merges, which are read for a GGUF only
TOKENS: Final = 1_000_000
TENSORS: Final = 80_000  # of an adapter; of each file of a base
SHARDS: Final = 1_000
FILES: Final = 10_000  # of a directory that is attested; of what a hub lists
ATTESTATION_NBYTES: Final = 50_000_000
DIMENSIONS: Final = 8  # of a tensor
KEY_LENGTH: Final = 300  # of a tensor's key: no longer one is a module's
LAYERS: Final = 1_000
METADATA_ENTRIES: Final = 20_000  # of a GGUF
METADATA_STRINGS: Final = 5_000_000  # in the arrays of a GGUF
PICKLE_OPCODES: Final = 200_000
HUB_SECONDS: Final = 600  # for all of one hf:// path
MANIFEST_NBYTES: Final = 50_000_000  # of a fleet
MANIFEST_ROWS: Final = 100_000
CELL_LENGTH: Final = 4_096  # characters
PATTERN_LENGTH: Final = 4_000
PATTERN_WAYS: Final = 100_000  # in which one pattern can be tried over one module
PATTERN_STEPS: Final = 500_000  # of all patterns over all modules
