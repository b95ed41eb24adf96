"""Host functions of ROCm programs: none yet, torch's are portable's."""
