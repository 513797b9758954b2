# One CTest entry per tag keeps the list readable and lets two cores share the work.
foreach(tag accept base build_record bundle catalog certificate codec comparison compressed compressed_tensors content digest drift engine engines file_times float_codes frame gate ggml_best ggml_decode
            ggml_plain ggml_scalar gguf group_search health hf hf_back hf_tokenizer house imatrix importance json key lineage lock manifest metadata mix model npy
            output_set pack_codec planes policy property quantize_step review safetensors scheme_write schemes seek_table selector signed_manifest statistics
            tensor terminal tree values written_digest wrong_file)
  add_test(NAME unit.${tag} COMMAND unit_tests "[${tag}]")
  set_tests_properties(unit.${tag} PROPERTIES LABELS unit TIMEOUT 300)
endforeach()
