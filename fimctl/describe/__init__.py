"""What fimctl's parser knows, as completions of shells and as manual pages."""
