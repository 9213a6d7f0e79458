# bash results/int8-quality/run.sh OUT.csv LABEL: appends a row for each level of instructions.
# Run it in the code that is to be measured; THIS is the folder of measure.py.
set -e
THIS=$(dirname "$(realpath "$0")")
export PYTHONPATH=$PWD
gcc -O1 -shared -fPIC -o "${TMPDIR:-/tmp}/hide_cpu_features.so" "$THIS/hide_cpu_features.c"
for isa in AVX2 AVX512_CORE AVX2_VNNI AVX512_CORE_VNNI DEFAULT; do
    ONEDNN_MAX_CPU_ISA=$isa python "$THIS/measure.py" "$1" --code "$2"
done
# MLAS knows no such limit.
for hidden in vnni,amx,avx512 vnni,amx avx512,amx amx ""; do
    HIDDEN_CPU_FEATURES=$hidden LD_PRELOAD=${TMPDIR:-/tmp}/hide_cpu_features.so \
        python "$THIS/measure.py" "$1" --code "$2" --engine onnxruntime
done
